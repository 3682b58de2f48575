"""Rows on their way into a file: CSV (RFC 4180) and JSON Lines, made a part at a time.

Names that people choose end up in spreadsheets. A text that a spreadsheet would take for a formula gets an
apostrophe (``core/spreadsheets.py``); numbers are numbers, and are never touched.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from starlette.responses import StreamingResponse

from app.core.spreadsheets import SEPARATORS, guarded

ExportFormat = Literal["csv", "jsonl"]

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8; header=present", "jsonl": "application/jsonl"}
_QUOTED = re.compile(rf'[",\r\n{SEPARATORS}]|^ | $')


class Column(msgspec.Struct, frozen=True):
    """``is_number``: integers, and amounts of money as decimal text."""

    name: str
    is_number: bool = False


def csv_line(cells: Sequence[Any], columns: Sequence[Column]) -> str:
    """One line with its end: None is empty, a truth value ``true`` or ``false``, an object JSON."""
    return ",".join([_cell(cell, column.is_number) for cell, column in zip(cells, columns, strict=True)]) + "\r\n"


def csv_head(columns: Sequence[Column]) -> str:
    # A column may be named after a tag, and so by a client.
    return csv_line([column.name for column in columns], [Column("") for _ in columns])


def _cell(value: Any, is_number: bool) -> str:  # noqa: FBT001 - called for each cell of a file
    if value is None:
        return ""
    if is_number:
        return str(value)
    text = guarded(value if isinstance(value, str) else _text(value))
    if _QUOTED.search(text) is not None:
        return '"' + text.replace('"', '""') + '"'
    return text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return msgspec.json.encode(value).decode() if value else ""
    return str(value)


async def lines_of(
    parts: AsyncIterator[Sequence[Mapping[str, Any]]], columns: Sequence[Column], style: ExportFormat
) -> AsyncIterator[bytes]:
    """The file in pieces, one for each part of rows; the first is not there before rows have been read."""
    if style == "jsonl":
        async for rows in parts:
            yield b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        return
    head = csv_head(columns)
    async for rows in parts:
        yield (head + "".join(csv_line([row.get(column.name) for column in columns], columns) for row in rows)).encode()
        head = ""
    if head:
        yield head.encode()


async def download(pieces: AsyncIterator[bytes], style: ExportFormat, filename: str) -> StreamingResponse:
    """An answer that a browser keeps as a file. ``filename``: letters, digits, ``_``, ``.`` and ``-``.

    Raises what the first piece raises: what cannot be answered is an error yet, and not a file that breaks off.
    """
    first = await anext(pieces, b"")
    headers = {
        "content-disposition": f'attachment; filename="{filename}.{style}"',
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(_with(first, pieces), media_type=MEDIA_TYPES[style], headers=headers)


async def _with(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in others:
        yield piece
