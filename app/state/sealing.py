"""Turns at rest: compressed, and encrypted with keys that are not in the database.

Fernet (AES-128-CBC and HMAC-SHA-256): what was changed is not read, and a token says nothing but its age. The first
key encrypts, each of them decrypts, so that keys can be changed while gateways run.
"""

from __future__ import annotations

import re

import msgspec
import zstandard
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.state.turn import TURN_BYTES_MAX, Content

KEYS_MAX = 16
ENVELOPE_BYTES_MAX = 4096
"""Of what is encrypted beside input and response."""
LEVEL = 3
_CANARY = b"headgate state"
_BETWEEN = re.compile(r"[,\s]+")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Content)


class KeysInvalid(ValueError):
    """What was given are no keys; nothing of it is repeated."""


class SealBroken(Exception):
    """Encrypted with none of the keys, changed, or in another's place."""


def new_key() -> str:
    """A key from the system's random source."""
    return Fernet.generate_key().decode()


class Seal:
    """Encrypts with the first of ``text``'s keys, which are separated by commas or white space. Raises KeysInvalid."""

    def __init__(self, text: str) -> None:
        keys = [key for key in _BETWEEN.split(text) if key]
        if not 0 < len(keys) <= KEYS_MAX:
            raise KeysInvalid(f"expected 1 to {KEYS_MAX} keys, separated by commas")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise KeysInvalid("expected keys of 32 random bytes in URL-safe base64") from None
        self._count = len(keys)

    def __repr__(self) -> str:
        return f"Seal(keys={self._count})"

    def close(self, content: Content) -> bytes:
        """The content, encrypted."""
        return self._fernet.encrypt(zstandard.ZstdCompressor(level=LEVEL).compress(_encoder.encode(content)))

    def open(self, token: bytes, team_id: str, turn_id: str) -> Content:
        """The content of a turn. Raises SealBroken."""
        try:
            frame = self._fernet.decrypt(token)
            if not 0 < zstandard.frame_content_size(frame) <= TURN_BYTES_MAX + ENVELOPE_BYTES_MAX:
                raise SealBroken
            content = _decoder.decode(zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False))
        except (InvalidToken, zstandard.ZstdError, msgspec.DecodeError):
            raise SealBroken from None
        if (content.team_id, content.turn_id) != (team_id, turn_id):
            raise SealBroken
        return content

    def turned(self, token: bytes) -> bytes:
        """The same content under the first key. Raises SealBroken."""
        try:
            return self._fernet.rotate(token)
        except InvalidToken:
            raise SealBroken from None

    def canary(self) -> str:
        """What tells later whether the keys are still the same."""
        return self._fernet.encrypt(_CANARY).decode()

    def knows(self, canary: str) -> bool:
        """Whether one of the keys has made it."""
        try:
            return self._fernet.decrypt(canary) == _CANARY
        except InvalidToken:
            return False
