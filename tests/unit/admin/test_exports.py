from __future__ import annotations

import csv
import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.admin.exports import Column, csv_head, csv_line, download, lines_of
from app.core.errors import InvalidRequest
from app.core.spreadsheets import FORMULA_STARTS

TEXT, NUMBER = Column("name"), Column("cost_usd", is_number=True)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_a_formula_is_text(start):
    hostile = f"{start}cmd|' /C calc'!A0"
    ((cell,),) = read(csv_line([hostile], [TEXT]))
    assert cell == f"'{hostile}"


def test_numbers_are_numbers():
    assert csv_line(["-0.000123", 12], [NUMBER, Column("requests", is_number=True)]) == "-0.000123,12\r\n"


def test_a_name_that_looks_like_a_number_is_text():
    assert csv_line(["-5"], [TEXT]) == "'-5\r\n"


def test_what_is_not_text():
    columns = [TEXT] * 5
    assert csv_line([None, True, False, {"project": "a"}, {}], columns) == ',true,false,"{""project"":""a""}",\r\n'


def test_the_head_is_guarded_too():
    assert csv_head([Column("tag.-x"), Column("=x"), Column("a,b")]) == 'tag.-x,\'=x,"a,b"\r\n'


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=5))
def test_what_is_written_is_read_back_and_never_a_formula(cells):
    (row,) = read(csv_line(cells, [TEXT] * len(cells)) if any(cells) else '""\r\n') or [[""]]
    if not any(cells):
        return
    for given_cell, cell in zip(cells, row, strict=True):
        assert not cell.startswith(FORMULA_STARTS)
        assert cell.replace("'", "") == given_cell.replace("'", "")
        assert cell.startswith("'") == given_cell.startswith(("'", *FORMULA_STARTS))


HOSTILE = st.lists(st.text("=+-@;|\t\r\n,\"' ax\uff1d", max_size=12), min_size=1, max_size=4)


@given(HOSTILE)
@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_NONE])
def test_no_common_reader_finds_a_formula(separator, quoting, cells):
    """Another separator, quotes that mean nothing, blanks that are dropped: no cell of theirs begins a formula."""
    text = csv_line(cells, [TEXT] * len(cells))
    if separator == "," and quoting == csv.QUOTE_NONE:
        return  # Who parts at commas and heeds no quotes reads no CSV.
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
    for cell in (cell for line in lines for cell in line):
        assert not cell.lstrip(" ").startswith(tuple("=+-@\uff1d")), text


def test_a_cell_that_holds_a_separator_is_quoted_and_guarded():
    columns = [TEXT] * 5
    text = csv_line(["a;=1+1", "b\t@x", "c|-2", "d;e", 'f; "=g'], columns)
    assert text == '"a;\'=1+1","b\t\'@x","c|\'-2","d;e","f; ""\'=g"\r\n'


def test_a_number_beside_a_separator_is_a_number():
    assert csv_line(["a;-1", "-1"], [TEXT, NUMBER]) == '"a;\'-1",-1\r\n'


async def test_lines_come_in_parts():
    async def parts():
        yield [{"name": "a", "cost_usd": "1"}, {"name": "=b", "cost_usd": "-1"}]
        yield [{"name": "c"}]

    columns = [TEXT, NUMBER]
    text = [piece.decode() async for piece in lines_of(parts(), columns, "csv")]
    assert text == ["name,cost_usd\r\na,1\r\n'=b,-1\r\n", "c,\r\n"]
    lines = [piece async for piece in lines_of(parts(), columns, "jsonl")]
    assert [msgspec.json.decode(line) for line in b"".join(lines).splitlines()] == [
        {"name": "a", "cost_usd": "1"},
        {"name": "=b", "cost_usd": "-1"},
        {"name": "c"},
    ]


async def broken_after(*parts):
    for part in parts:
        yield part
    raise InvalidRequest("This cannot be told.")


@pytest.mark.parametrize("style", ["csv", "jsonl"])
async def test_what_cannot_be_answered_is_an_error_and_no_file(style):
    with pytest.raises(InvalidRequest):
        await download(lines_of(broken_after(), [TEXT, NUMBER], style), style, "file")
    begun = await download(lines_of(broken_after([{"name": "a"}]), [TEXT, NUMBER], style), style, "file")
    with pytest.raises(InvalidRequest):
        _ = [piece async for piece in begun.body_iterator]


async def test_a_file_without_rows_has_its_head():
    async def parts():
        for _ in ():
            yield []

    answer = await download(lines_of(parts(), [TEXT, NUMBER], "csv"), "csv", "file")
    assert b"".join([piece async for piece in answer.body_iterator]) == b"name,cost_usd\r\n"
