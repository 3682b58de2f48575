"""The files that the provider keeps."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from app.simulator.errors import RequestRefused
from app.simulator.identifiers import random_hex
from app.simulator.resources.blobs import Blob, Content, PatternContent

if TYPE_CHECKING:
    from app.core.clock import Clock

FILES_MAX = 10_000
FILES_BYTES_MAX = 4 * 1024 * 1024 * 1024
PATTERN_PREFIX = "file-bytes-"
"""A file of this name exists in every size: ``file-bytes-1000`` has a thousand bytes."""
PATTERN_BYTES_MAX = 1024 * 1024 * 1024 * 1024


class StoredFile(NamedTuple):
    """A file's object, and its bytes."""

    shown: dict[str, Any]
    content: Content


class FileStore:
    """The newest files, bounded by number and by bytes, which may be on disk."""

    def __init__(
        self, clock: Clock, *, files_max: int = FILES_MAX, bytes_max: int = FILES_BYTES_MAX, unlisted: str = ""
    ) -> None:
        self._clock = clock
        self._unlisted = unlisted
        self._files: OrderedDict[str, tuple[StoredFile, Blob]] = OrderedDict()
        self._bytes = 0
        self.files_max = files_max
        self.bytes_max = bytes_max

    def keep(
        self, blob: Blob, filename: str, purpose: str, expires_s: int | None = None, *, file_id: str = ""
    ) -> dict[str, Any]:
        """The object of a new file; the oldest go where there is no room."""
        created_s = self._clock.now_ms() // 1000
        file_id = file_id or f"file-{random_hex(24)}"
        shown: dict[str, Any] = {
            "id": file_id,
            "object": "file",
            "bytes": blob.size,
            "created_at": created_s,
            "expires_at": None if expires_s is None else created_s + expires_s,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        self._files[file_id] = (StoredFile(shown, blob), blob)
        self._bytes += blob.size
        while len(self._files) > self.files_max or self._bytes > self.bytes_max:
            self.remove(next(iter(self._files)))
        return shown

    def find(self, file_id: str) -> StoredFile:
        """The file of an id; a refusal where there is none."""
        kept = self._files.get(file_id)
        if kept is not None:
            return kept[0]
        told = file_id.removeprefix(PATTERN_PREFIX)
        if file_id.startswith(PATTERN_PREFIX) and told.isascii() and told.isdigit() and len(told) < 14:
            size = min(int(told), PATTERN_BYTES_MAX)
            shown = {
                "id": file_id,
                "object": "file",
                "bytes": size,
                "created_at": 0,
                "expires_at": None,
                "filename": f"{size}.bin",
                "purpose": "user_data",
                "status": "processed",
                "status_details": None,
            }
            return StoredFile(shown, PatternContent(size))
        raise RequestRefused(404, f"No such File object: {file_id}", param="id")

    def remove(self, file_id: str) -> bool:
        """Forget a file; whether it was there."""
        kept = self._files.pop(file_id, None)
        if kept is None:
            return False
        self._bytes -= kept[1].size
        kept[1].close()
        return True

    def shown(self) -> list[dict[str, Any]]:
        """Every file's object, oldest first, less those of the purpose that is not listed."""
        return [stored.shown for stored, _ in self._files.values() if stored.shown["purpose"] != self._unlisted]

    def close(self) -> None:
        """Give the disk's room back."""
        while self._files:
            self.remove(next(iter(self._files)))

    def __repr__(self) -> str:
        return f"FileStore(files={len(self._files)}/{self.files_max}, bytes={self._bytes}/{self.bytes_max})"
