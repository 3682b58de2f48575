"""How commands speak: results to stdout, the rest to stderr; exit 0, 1 (one sentence says why) or 2."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from collections.abc import Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import typer

from app.core.spreadsheets import guarded
from app.settings import ConfigurationError
from app.store.errors import DatabaseUnavailable, StoreError

T = TypeVar("T")
Row = Mapping[str, Any]


class Format(StrEnum):
    """How rows come out."""

    table = "table"
    json = "json"
    csv = "csv"


def fail(sentence: str) -> typer.Exit:
    """Say why on stderr; the caller raises the exit."""
    warn(sentence)
    return typer.Exit(1)


def warn(sentence: str) -> None:
    """Say something on stderr that does not stop the command."""
    print(f"headgate: {sentence}", file=sys.stderr)


def sentence_of(error: Exception) -> str:
    """What failed, for a person."""
    if isinstance(error, DatabaseUnavailable):
        return f"the ledger's database does not answer: {error}"
    return str(error) or type(error).__name__


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``; what can be said in a sentence is, without a traceback."""
    try:
        return asyncio.run(work)
    except (StoreError, ConfigurationError) as error:
        raise fail(sentence_of(error)) from error
    except OSError as error:
        raise fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from error


def show_object(value: Row, *, as_json: bool) -> None:
    """One object."""
    if as_json:
        print(json.dumps(value, ensure_ascii=False))
        return
    width = max(len(name) for name in value)
    for name, content in value.items():
        print(f"{name:<{width}}  {_cell(content)}")


def show_rows(rows: Sequence[Row], columns: Sequence[str], style: Format) -> None:
    """Rows, as a table for people or as data."""
    if style is Format.json:
        print(json.dumps(list(rows), ensure_ascii=False))
    elif style is Format.csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows([_csv_cell(row[name]) for name in columns] for row in rows)
        sys.stdout.write(text.getvalue())
    else:
        _table(rows, columns)


def _table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    if not rows:
        print("nothing yet", file=sys.stderr)
        return
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(len(name), *(len(line[index]) for line in cells)) for index, name in enumerate(columns)]
    numeric = [all(isinstance(row[name], (int, float)) or _is_amount(row[name]) for row in rows) for name in columns]
    for line in (list(columns), *cells):
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        print("  ".join(padded).rstrip())


def _is_amount(value: Any) -> bool:
    return isinstance(value, str) and value.replace(".", "", 1).lstrip("-").isdigit()


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    text = str(value)
    return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)


def _csv_cell(value: Any) -> Any:
    """A spreadsheet must not take a name for a formula."""
    if isinstance(value, (list, tuple)):
        value = ",".join(str(item) for item in value)
    return guarded(value) if isinstance(value, str) and not _is_amount(value) else value
