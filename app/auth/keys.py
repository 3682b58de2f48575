"""Gateway keys: ``sk-hg-`` + 10 base62 (public id) + ``-`` + 32 base62 (secret) + 6 base62 (CRC-32).

The public id may appear anywhere, the secret nowhere. At rest there is the SHA-256 of the whole text:
the secret has 190 random bits, so a slow hash would add nothing. The checksum refuses garbage without
a look-up.
"""

from __future__ import annotations

import hashlib
import re
import zlib

import msgspec

from app.core.ids import encode_base62, random_base62

ID_LENGTH = 10
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6
KEY_PREFIX = "sk-hg-"
ADMIN_PREFIX = "hg-admin-"

_SHAPE = re.compile(rf"(?:{KEY_PREFIX}|{ADMIN_PREFIX})([0-9A-Za-z]{{10}})-[0-9A-Za-z]{{38}}\Z", re.ASCII)


class MintedKey(msgspec.Struct, frozen=True):
    """A new key. ``text`` is shown once and kept nowhere; ``digest`` is what the ledger keeps."""

    id: str
    text: str
    digest: bytes

    def __repr__(self) -> str:
        return f"MintedKey(id={self.id!r})"


def mint(prefix: str = KEY_PREFIX) -> MintedKey:
    """A new key, from the system's random source."""
    public_id = random_base62(ID_LENGTH)
    stem = f"{prefix}{public_id}-{random_base62(SECRET_LENGTH)}"
    text = stem + _checksum(stem)
    return MintedKey(id=public_id, text=text, digest=digest_of(text))


def parse(text: str) -> str | None:
    """The public id of a well-formed key whose checksum holds, else None."""
    found = _SHAPE.match(text)
    if found is None or _checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        return None
    return found.group(1)


def digest_of(text: str) -> bytes:
    """SHA-256 of the whole key: the full digest is the only thing that keys are looked up by."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _checksum(stem: str) -> str:
    return encode_base62(zlib.crc32(stem.encode()), CHECKSUM_LENGTH)
