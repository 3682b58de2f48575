"""The file of a backup: gzip'd JSON Lines, written and read in parts, so that its size does not matter.

A header; for each table a line that names it and its columns, and then its rows (arrays; bytes are base64);
a trailer with the number of rows of each table and the SHA-256 of all lines before it.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from app.store.errors import BackupRefused

FORMAT = "headgate-backup"
VERSION = 1

COMPRESSION = 3
"""A third faster than the usual 6, for a tenth more bytes."""

LINE_BYTES_MAX = 64 * 2**20

HEADER_BYTES_MAX = 4096

UNREADABLE = (EOFError, gzip.BadGzipFile, zlib.error)
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError)


class Header(msgspec.Struct, frozen=True):
    """The first line. ``schema`` is the revision of the tables, ``created_at_ms`` is for people."""

    format: str
    version: int
    schema: str
    created_at_ms: int


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line before a table's rows: the order of their values."""

    table: str
    columns: tuple[str, ...]


class Trailer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: rows by table, and the SHA-256 (hex) of every line before this one."""

    rows: dict[str, int]
    sha256: str


def is_backup(path: Path) -> bool:
    """Whether the file begins as a backup of any version does."""
    try:
        with gzip.open(path) as file:
            return b'"' + FORMAT.encode() + b'"' in file.readline(HEADER_BYTES_MAX)
    except (OSError, *UNREADABLE):
        return False


class BackupWriter:
    """Lines on their way into ``file``, which stays the caller's."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._gzip = gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0)
        self._hash = hashlib.sha256()
        self._encode = msgspec.json.Encoder().encode_lines
        self.rows: dict[str, int] = {}
        self._table = ""
        self._write([header])

    def _write(self, values: Sequence[object]) -> None:
        data = self._encode(values)
        self._hash.update(data)
        self._gzip.write(data)

    def begin_table(self, section: Section) -> None:
        self._table = section.table
        self.rows[self._table] = 0
        self._write([section])

    def write_rows(self, rows: Sequence[Sequence[object]]) -> None:
        """Rows of the table begun last, in the order of its columns."""
        self.rows[self._table] += len(rows)
        self._write(rows)

    def close(self) -> None:
        """Writes the trailer: without it the file is no backup."""
        self._write([Trailer(self.rows, self._hash.hexdigest())])
        self._gzip.close()


class BackupReader:
    """The lines of a backup in their order; raises BackupRefused. ``next_table`` gives None only behind a
    trailer that agrees with every line read: until then nothing is known to be whole.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._gzip = gzip.GzipFile(fileobj=file, mode="rb")
        self._hash = hashlib.sha256()
        self._ahead = b""
        self._table = ""
        self.rows: dict[str, int] = {}
        self.header = self._read_header()

    def _read_header(self) -> Header:
        try:
            self._read_ahead()
            header = msgspec.json.decode(self._ahead, type=Header)
        except (*NOT_JSON, BackupRefused) as error:
            raise BackupRefused("The file is not a backup of Headgate.") from error
        if header.format != FORMAT:
            raise BackupRefused("The file is not a backup of Headgate.")
        self._take()
        return header

    def next_table(self) -> Section | None:
        """The next table, once all rows of the one before were read; None at the end."""
        try:
            section = msgspec.json.decode(self._ahead, type=Section)
        except NOT_JSON:
            self._check_trailer()
            return None
        if section.table in self.rows:
            raise _damaged()
        self._take()
        self._table = section.table
        self.rows[self._table] = 0
        return section

    def next_rows(self, rows_max: int) -> list[bytes]:
        """Up to so many rows of the table named last, each as its line; none at its end."""
        rows: list[bytes] = []
        while len(rows) < rows_max and self._ahead.startswith(b"["):
            rows.append(self._take())
        if rows:
            self.rows[self._table] += len(rows)
        return rows

    def _check_trailer(self) -> None:
        try:
            trailer = msgspec.json.decode(self._ahead, type=Trailer)
        except NOT_JSON as error:
            raise _damaged() from error
        digest = self._hash.hexdigest()
        self._read_ahead()
        if trailer.sha256 != digest or trailer.rows != self.rows or self._ahead:
            raise _damaged()

    def _take(self) -> bytes:
        line = self._ahead
        self._hash.update(line)
        self._read_ahead()
        return line

    def _read_ahead(self) -> None:
        try:
            self._ahead = self._gzip.readline(LINE_BYTES_MAX)
        except UNREADABLE as error:
            raise _damaged() from error
        if self._ahead and not self._ahead.endswith(b"\n"):
            raise _damaged()


def _damaged() -> BackupRefused:
    return BackupRefused("The backup is damaged or was cut short; nothing was changed.")
