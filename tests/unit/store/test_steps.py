"""Steps ask, and are sent what was found, in order; texts hold no value."""

from __future__ import annotations

import sqlite3

import pytest

from app.store import statements
from app.store.statements import CHUNKS
from app.store.steps import Ask, Statement, run_in_thread

SQLITE_VARIABLES_MAX = 32_766

TEXTS = {name: each for name, each in vars(statements).items() if isinstance(each, Statement)}


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    yield connection
    connection.close()


def inserted(*sizes):
    return Statement(
        {size: f"INSERT INTO things VALUES {', '.join(['(?, ?)'] * size)} RETURNING id" for size in sizes}, ""
    )


@pytest.mark.parametrize("count", [0, 1, 2, 5, 8, 21])
def test_rows_are_asked_for_in_few_statements_and_in_their_order(connection, count):
    told = []
    connection.set_trace_callback(told.append)
    rows = [(number, f"n{number}") for number in range(count)]

    def steps():
        found = yield Ask(inserted(8, 4, 1), rows)
        return [row[0] for row in found]

    assert run_in_thread(connection, steps()) == list(range(count))
    assert len(told) == count // 8 + count % 8 // 4 + count % 4


def test_what_is_asked_next_may_depend_on_what_was_found(connection):
    def steps():
        yield Ask(inserted(1), [(1, "a"), (2, "b")])
        names = yield Ask(Statement({1: "SELECT name FROM things WHERE id = ?"}, ""), [(2,)])
        again = yield Ask(Statement({1: "SELECT id FROM things WHERE name = ?"}, ""), [tuple(names[0])])
        return again

    assert run_in_thread(connection, steps()) == [(2,)]


def test_what_a_statement_raises_ends_the_steps(connection):
    ended = []

    def steps():
        try:
            yield Ask(inserted(1), [(1, "a"), (1, "b")])
        finally:
            ended.append(True)

    running = steps()
    with pytest.raises(sqlite3.IntegrityError):
        run_in_thread(connection, running)
    running.close()
    assert ended == [True]


@pytest.mark.parametrize("name", TEXTS)
def test_texts_take_a_chunk_of_rows_and_hold_no_value(name):
    statement = TEXTS[name]
    assert list(statement.sqlite) in ([*CHUNKS], [1])
    largest = max(statement.sqlite)
    one = statement.sqlite[1].count("?")
    assert statement.sqlite[largest].count("?") == one * largest <= SQLITE_VARIABLES_MAX
    assert [f"${number}" in statement.postgres for number in range(1, one + 1)] == [True] * one
    assert f"${one + 1}" not in statement.postgres
    assert "%" not in statement.postgres
