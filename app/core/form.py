"""A strict reading of a multipart/form-data body that never changes it (RFC 7578, RFC 2046 §5.1).

Of a form the gateway reads a few short fields: the model, and ids. What two readers could take apart differently is
refused: a header line that is no header line, a part without a name, bytes around the parts, a field that is read and
occurs twice.
"""

from __future__ import annotations

import re

import msgspec

from app.core.errors import AmbiguousJSON, InvalidRequest

PARTS_MAX = 1000
PART_HEAD_BYTES_MAX = 4096
FIELD_BYTES_MAX = 64 * 1024
"""Of a field that is read; what is larger is somebody's data."""

_BOUNDARY = re.compile(
    rb'(?i)(?:^|;)[ \t]*boundary=(?:"([^"\\\r\n]{1,70})"|([!#$%&\'*+.^_`|~0-9A-Za-z()/:=?,-]{1,70}))'
)
_DISPOSITION = re.compile(
    rb'(?i)content-disposition:[ \t]*form-data;[ \t]*name="([^"\r\n\\;]*)"'
    rb'(;[ \t]*filename="[^"\r\n]*")?(;[ \t]*filename\*=[^;"\r\n]*)?[ \t]*\Z'
)
"""``name`` first, then a file's name: what every client sends, and what two readers cannot take apart differently."""
_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\Z")
_HEAD_END = b"\r\n\r\n"


class Field(msgspec.Struct, frozen=True):
    """A part of a form: its value is ``body[start:end]``. ``is_file``: it has a file's name."""

    name: str
    start: int
    end: int
    is_file: bool


class Form:
    """The fields of a form, in order."""

    __slots__ = ("body", "fields")

    def __init__(self, body: bytes, fields: list[Field]) -> None:
        self.body = body
        self.fields = fields

    def __repr__(self) -> str:
        return f"Form(bytes={len(self.body)}, fields={len(self.fields)})"

    def find(self, name: str) -> Field | None:
        """The one field of this name that is no file. Raises AmbiguousJSON where there are two: ``name[]`` is another,
        since some servers read a list by the name before its brackets.
        """
        found = [field for field in self.fields if field.name.partition("[")[0] == name]
        if len(found) > 1:
            raise AmbiguousJSON(f"The form has {name} twice.", param=name)
        if found and found[0].is_file:
            raise InvalidRequest(f"The field {name} must not be a file.", param=name)
        return found[0] if found else None

    def text(self, name: str) -> str | None:
        """The value of a field; None where there is none. Raises InvalidRequest where it is no short text."""
        field = self.find(name)
        return None if field is None else self._text_of(field)

    def texts(self) -> list[tuple[str, str]]:
        """The fields that are short, with their names: also what is sent as a file may be read as a text."""
        short = [field for field in self.fields if field.end - field.start <= FIELD_BYTES_MAX]
        return [(field.name, self.body[field.start : field.end].decode("utf-8", "replace")) for field in short]

    def _text_of(self, field: Field) -> str:
        value = self.body[field.start : field.end]
        if len(value) > FIELD_BYTES_MAX:
            raise InvalidRequest(f"The field {field.name} is too long.", param=field.name)
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"The field {field.name} is not UTF-8.", param=field.name) from None


def parse_form(body: bytes, content_type: bytes) -> Form:
    """The form that ``body`` is. Raises InvalidRequest."""
    found = _BOUNDARY.findall(content_type)
    if len(found) != 1:
        raise InvalidRequest("The content type names no one boundary.")
    delimiter = b"--" + (found[0][0] or found[0][1])
    if not body.startswith(delimiter + b"\r\n"):
        raise InvalidRequest("The body does not begin with the boundary of its content type.")
    fields: list[Field] = []
    at = len(delimiter) + 2
    delimiter = b"\r\n" + delimiter
    while True:
        end = body.find(delimiter, at)
        if end < 0:
            raise InvalidRequest("The form is cut off.")
        fields.append(_part(body, at, end))
        at = end + len(delimiter)
        following = body[at : at + 2]
        if following == b"--":
            if body[at + 2 :] not in {b"", b"\r\n"}:
                raise InvalidRequest("There is something behind the form.")
            return Form(body, fields)
        if following != b"\r\n" or len(fields) >= PARTS_MAX:
            raise InvalidRequest("The form is not valid, or has too many parts.")
        at += 2


def _part(body: bytes, at: int, end: int) -> Field:
    head_end = body.find(_HEAD_END, at, min(end, at + PART_HEAD_BYTES_MAX))
    if head_end < 0:
        raise InvalidRequest("A part of the form has no head, or one that is too long.")
    name = None
    is_file = False
    for line in body[at:head_end].split(b"\r\n"):
        if _HEADER_LINE.match(line) is None:
            raise InvalidRequest("A part of the form has a head that is not valid.")
        lower = line.lower()
        if lower.startswith(b"content-transfer-encoding:") and lower.partition(b":")[2].strip() not in {
            b"binary",
            b"8bit",
            b"7bit",
        }:
            raise InvalidRequest("A part of the form is encoded.")
        if lower.startswith(b"content-disposition:"):
            told = _DISPOSITION.match(line)
            if told is None or name is not None:
                raise InvalidRequest("A part of the form has no one plain name.")
            name = told[1].decode("utf-8", "replace")
            is_file = told[2] is not None or told[3] is not None
    if name is None:
        raise InvalidRequest("A part of the form has no name.")
    return Field(name, head_end + len(_HEAD_END), end, is_file)
