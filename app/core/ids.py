"""Identifiers: UUIDv7 for requests, base62 for what people copy."""

from __future__ import annotations

import random
import re
import secrets

OBJECT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,255}\Z")
"""The id of something stored upstream."""
FIRST_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"([A-Za-z0-9_.:-]{1,256})"')
"""An answer's id where it is the first member, as it is with every server seen so far."""
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new_request_id(now_ms: int) -> str:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, then 74 random bits."""
    # Unique, and nobody's secret: the cheap source is enough.
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | random.getrandbits(74)
    # The random bits fill rand_a (12) and rand_b (62); version and variant are set around them.
    rand_a = value >> 62 & 0xFFF
    value = (value >> 80) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | value & 0x3FFF_FFFF_FFFF_FFFF
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def random_base62(length: int) -> str:
    """``length`` base62 characters from the system's random source."""
    return "".join(secrets.choice(BASE62) for _ in range(length))


def encode_base62(value: int, length: int) -> str:
    """``value`` in base62, left-padded with zeros to ``length``; ValueError if it does not fit."""
    digits: list[str] = []
    for _ in range(length):
        value, digit = divmod(value, 62)
        digits.append(BASE62[digit])
    if value:
        raise ValueError(f"does not fit {length} base62 digits")
    return "".join(reversed(digits))
