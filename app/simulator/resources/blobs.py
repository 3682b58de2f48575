"""Bytes that are kept: small ones in memory, large ones in a temporary file."""

from __future__ import annotations

from io import BytesIO
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Protocol

from app.simulator.errors import RequestRefused
from app.simulator.identifiers import new_request_id

if TYPE_CHECKING:
    from app.simulator.routes import Request

MEMORY_BYTES_MAX = 1024 * 1024
"""What a blob may have before it goes to disk."""
BLOB_BYTES_MAX = 512 * 1024 * 1024
PIECE_BYTES = 256 * 1024
BINARY = b"application/octet-stream"
_PATTERN = bytes(range(256)) * (PIECE_BYTES // 256 + 1)


class Content(Protocol):
    """Bytes that can be read from anywhere."""

    size: int

    def read(self, offset: int, size: int) -> bytes: ...

    def hold(self) -> None:
        """Somebody reads: do not close."""

    def release(self) -> None:
        """Nobody reads any more."""


class Blob:
    """Content that was uploaded."""

    def __init__(self) -> None:
        self._file: IO[bytes] = BytesIO()
        self._readers = 0
        self._unwanted = False
        self.size = 0

    @classmethod
    def of(cls, data: bytes) -> Blob:
        blob = cls()
        blob.write(data)
        return blob

    def write(self, data: bytes) -> None:
        """Append. Raises RequestRefused where it becomes too large."""
        if self.size + len(data) > BLOB_BYTES_MAX:
            raise RequestRefused(413, f"A file has at most {BLOB_BYTES_MAX} bytes.")
        if self.size <= MEMORY_BYTES_MAX < self.size + len(data):
            self._move_to_disk()
        self._file.seek(self.size)
        self._file.write(data)
        self.size += len(data)

    def read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def hold(self) -> None:
        self._readers += 1

    def release(self) -> None:
        self._readers -= 1
        if self._unwanted and not self._readers:
            self._file.close()

    def close(self) -> None:
        """Give its room back, once the last reader has finished."""
        self._unwanted = True
        if not self._readers:
            self._file.close()

    def _move_to_disk(self) -> None:
        held = self._file
        # It outlives the request that brings it; whoever keeps it closes it.
        self._file = TemporaryFile()  # noqa: SIM115
        held.seek(0)
        self._file.write(held.read())

    def __repr__(self) -> str:
        return f"Blob(size={self.size}, readers={self._readers})"


class PatternContent:
    """So many bytes of a pattern, which take no room."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        first = offset % 256
        return _PATTERN[first : first + min(size, self.size - offset, PIECE_BYTES)]

    def hold(self) -> None:
        """Nothing to close."""

    def release(self) -> None:
        """Nothing to close."""


async def send_content(request: Request, content: Content, content_type: bytes = BINARY) -> None:
    """Answer with ``content``, piece by piece, as fast as the client takes it."""
    channel = request.channel
    channel.watch()
    head = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % content.size),
        (b"x-request-id", new_request_id()),
    ]
    content.hold()
    try:
        await channel.start(200, head)
        sent = 0
        while sent < content.size and not channel.gone:
            piece = content.read(sent, PIECE_BYTES)
            await channel.write(piece)
            sent += len(piece)
            # A client that leaves is noticed, and the others get their turn.
            await channel.pause(0)
        if not channel.gone:
            await channel.finish()
    finally:
        content.release()
