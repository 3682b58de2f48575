"""Multipart forms, read as they come: what is large never stands in memory whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from app.simulator.errors import RequestRefused, refuse_missing
from app.simulator.resources.blobs import Blob

if TYPE_CHECKING:
    from app.simulator.routes import Request

FIELD_BYTES_MAX = 1024 * 1024
HEAD_BYTES_MAX = 16 * 1024
PARTS_MAX = 1000
_BOUNDARY = re.compile(rb'boundary=(?:"([^"]{1,200})"|([^;\s]{1,200}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name="([^"]*)"')
_FILENAME = re.compile(rb'[;\s]filename="([^"]*)"')
_TYPE = re.compile(rb"^content-type:\s*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class FormFile(NamedTuple):
    """An uploaded file."""

    filename: str
    content_type: str
    blob: Blob


class Form:
    """What a form held. Names of lists have lost their ``[]``."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.files: dict[str, list[FormFile]] = {}

    def file(self, name: str) -> FormFile:
        """The first file of ``name``. The caller keeps it, and ``close`` leaves it alone."""
        files = self.files.get(name)
        if not files:
            refuse_missing(name)
        return files.pop(0)

    def field(self, name: str) -> str:
        value = self.fields.get(name)
        if not value:
            refuse_missing(name)
        return value

    def close(self) -> None:
        """Drop the files that nobody has taken."""
        for files in self.files.values():
            for file in files:
                file.blob.close()

    def __repr__(self) -> str:
        return f"Form(fields={sorted(self.fields)}, files={sorted(self.files)})"


class FormParser:
    """Fed with the body in any pieces."""

    def __init__(self, content_type: bytes) -> None:
        found = _BOUNDARY.search(content_type)
        if found is None or not content_type.lower().startswith(b"multipart/form-data"):
            raise RequestRefused(400, "Expected a multipart/form-data body with a boundary.")
        self._delimiter = b"\r\n--" + (found[1] or found[2])
        # The first delimiter has no line before it.
        self._held = bytearray(b"\r\n")
        self._step = self._seek_delimiter
        self._name = ""
        self._field: bytearray | None = None
        self._blob: Blob | None = None
        self._parts = 0
        self.ended = False
        self.form = Form()

    def feed(self, data: bytes) -> None:
        """Take in a piece. Raises RequestRefused."""
        if self.ended:
            return
        self._held += data
        while self._step():
            pass

    def close(self) -> Form:
        """The form, if it was whole."""
        if not self.ended:
            raise RequestRefused(400, "The multipart body ends before its last boundary.")
        return self.form

    def _seek_delimiter(self) -> bool:
        """Pass on the part's bytes; go on where the part has ended."""
        place = self._held.find(self._delimiter)
        if place < 0:
            # Less what may be the beginning of a delimiter.
            certain = len(self._held) - len(self._delimiter) + 1
            if certain > 0:
                self._emit(bytes(self._held[:certain]))
                del self._held[:certain]
            return False
        self._emit(bytes(self._held[:place]))
        del self._held[: place + len(self._delimiter)]
        self._finish_part()
        self._step = self._pass_delimiter
        return True

    def _pass_delimiter(self) -> bool:
        if len(self._held) < 2:
            return False
        if self._held[:2] == b"--":
            self.ended = True
            self._held.clear()
            return False
        self._step = self._read_head
        return True

    def _read_head(self) -> bool:
        place = self._held.find(b"\r\n\r\n")
        if place < 0:
            if len(self._held) > HEAD_BYTES_MAX:
                raise RequestRefused(400, "A part's headers are too long.")
            return False
        head = bytes(self._held[:place])
        del self._held[: place + 4]
        self._open_part(head)
        self._step = self._seek_delimiter
        return True

    def _open_part(self, head: bytes) -> None:
        self._parts += 1
        name, filename, kind = _NAME.search(head), _FILENAME.search(head), _TYPE.search(head)
        if name is None or self._parts > PARTS_MAX:
            raise RequestRefused(400, "A part of the multipart body has no name, or there are too many.")
        self._name = name[1].decode("utf-8", "replace").removesuffix("[]")
        if filename is None:
            self._field = bytearray()
            return
        self._blob = Blob()
        content_type = kind[1].decode("latin-1") if kind else "application/octet-stream"
        file = FormFile(filename[1].decode("utf-8", "replace"), content_type, self._blob)
        self.form.files.setdefault(self._name, []).append(file)

    def _emit(self, data: bytes) -> None:
        if self._blob is not None:
            self._blob.write(data)
        elif self._field is not None:
            if len(self._field) + len(data) > FIELD_BYTES_MAX:
                raise RequestRefused(400, f"A field has at most {FIELD_BYTES_MAX} bytes.")
            self._field += data

    def _finish_part(self) -> None:
        if self._field is not None:
            self.form.fields[self._name] = self._field.decode("utf-8", "replace")
        self._field = self._blob = None


async def read_form(request: Request) -> Form:
    """The form of a request. Its files are the caller's to keep or to close."""
    parser = FormParser(request.headers.get(b"content-type", b""))
    try:
        while (piece := await request.channel.read_piece()) is not None:
            parser.feed(piece)
        return parser.close()
    except BaseException:
        parser.form.close()
        raise


def form_of(content_type: bytes, data: bytes) -> Form:
    """The form of a whole body."""
    parser = FormParser(content_type)
    try:
        parser.feed(data)
        return parser.close()
    except RequestRefused:
        parser.form.close()
        raise
