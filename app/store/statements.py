"""The statements of the ledger's batches and counters, compiled once per database.

SQLite gets several rows in one statement: its driver lets go of the interpreter for every step, and
getting it back from a busy event loop costs more than the insert. PostgreSQL gets a column an array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Dialect,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    func,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from app.store import tables
from app.store.steps import Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Column, Select, Table
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.dml import Insert, Update

POSTGRES: Dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call] # its own __init__ has no types
SQLITE: Dialect = sqlite.dialect()

CHUNKS = (128, 64, 32, 16, 8, 4, 2, 1)
"""Rows in one statement on SQLite, the largest that fits first; 128 entries are 4,480 of 32,766 variables."""

# Written into the texts: a parameter in the middle of a statement would have to be given with every row.
ESTIMATE = literal_column("'estimate'", Text())
EXACT = literal_column("'exact'", Text())
PRIMARY = literal_column("''", Text())
ZERO = literal_column("0", tables.INT)

AnyInsert: TypeAlias = "postgresql.Insert | sqlite.Insert"


def _repeated(statement: Insert, table: Table) -> dict[int, str]:
    """The text of ``statement`` for each size of chunk. Only its group of placeholders is repeated: no
    value ever enters the text.
    """
    text = str(statement.compile(dialect=SQLITE))
    group = f"({', '.join('?' * len(table.columns))})"
    head, values, tail = text.partition("VALUES " + group)
    if not values or "?" in tail:
        raise ValueError(f"not an insert of one row: {text}")
    return {rows: f"{head}VALUES {', '.join([group] * rows)}{tail}" for rows in CHUNKS}


def _arrays(columns: list[Column[Any]]) -> Any:
    """Rows from one array for each of ``columns``."""
    arrays = [bindparam(each.name, type_=postgresql.ARRAY(each.type)) for each in columns]
    rows = func.unnest(*arrays).table_valued(*[column(each.name, each.type) for each in columns])
    return rows.render_derived(name="given")


def _insert(table: Table, finish: Callable[[AnyInsert], Insert]) -> Statement:
    columns = list(table.columns)
    given = select(*_arrays(columns).columns)
    from_arrays = postgresql.insert(table).from_select([each.name for each in columns], given)
    return Statement(
        sqlite=_repeated(finish(sqlite.insert(table)), table),
        postgres=str(finish(from_arrays).compile(dialect=POSTGRES)),
    )


def _new(table: Table, *returned: Column[Any]) -> Statement:
    """Inserts rows that are not there yet, and returns these columns of them."""

    def finish(insert: AnyInsert) -> Insert:
        quiet = insert.on_conflict_do_nothing()
        return quiet.returning(*returned) if returned else quiet

    return _insert(table, finish)


def _adding(table: Table, key: Sequence[str]) -> Callable[[AnyInsert], Insert]:
    """Adds the other columns to those of a row that is there."""
    return lambda insert: insert.on_conflict_do_update(
        index_elements=list(key),
        set_={each.name: each + insert.excluded[each.name] for each in table.columns if each.name not in key},
    )


def _added_to_budgets(insert: AnyInsert) -> Insert:
    """A window that is not there is made as it is given; its version tells that, since it is then 1."""
    there, given = tables.budgets.c, insert.excluded
    upsert = insert.on_conflict_do_update(
        index_elements=["budget_id", "start_ms"],
        set_={
            "spent_nanousd": there.spent_nanousd + given.spent_nanousd,
            "version": there.version + given.version,
        },
    )
    return upsert.returning(there.budget_id, there.start_ms, there.spent_nanousd, there.version)


def _later_of_secret_uses(insert: AnyInsert) -> Insert:
    there, given = tables.secret_uses.c.used_at_ms, insert.excluded.used_at_ms
    return insert.on_conflict_do_update(
        index_elements=["secret_id"], set_={"used_at_ms": case((given > there, given), else_=there)}
    )


def _of_ids(asked: Select[Any], id_column: ColumnElement[str]) -> Statement:
    """``asked`` for rows of one id each."""
    text = str(asked.where(id_column.in_([bindparam("id", type_=Text())])).compile(dialect=SQLITE))
    head, group, tail = text.partition("IN (?)")
    if not group or "?" in tail:
        raise ValueError(f"not a look-up by one id: {text}")
    ids = bindparam("ids", type_=postgresql.ARRAY(Text()))
    return Statement(
        sqlite={rows: f"{head}IN ({', '.join('?' * rows)}){tail}" for rows in CHUNKS},
        postgres=str(asked.where(id_column == func.any(ids)).compile(dialect=POSTGRES)),
    )


def _of_one(statement: Callable[[Dialect], Select[Any] | Update], names: tuple[str, ...]) -> Statement:
    """A statement for one row of parameters ``names``, each used as often as it is needed."""

    def compiled(dialect: Dialect) -> SQLCompiler:
        found: Any = statement(dialect).compile(dialect=dialect)
        if tuple(found.positiontup) != names:
            raise ValueError(f"the parameters of {found} are {found.positiontup}")
        return found  # type: ignore[no-any-return] # what compile returns has no type of its own

    return Statement(sqlite={1: str(compiled(SQLITE))}, postgres=str(compiled(POSTGRES)), arrays=False)


def _text(name: str) -> BindParameter[str]:
    return bindparam(name, type_=Text())


def _int(name: str) -> BindParameter[int]:
    return bindparam(name, type_=tables.INT)


_records, _entries, _rollups, _budgets = tables.records.c, tables.entries.c, tables.rollups.c, tables.budgets.c
_window = (tables.budgets.c.budget_id, tables.budgets.c.start_ms)
_counter = (*_window, tables.budgets.c.spent_nanousd, tables.budgets.c.version)

RECORDS = _new(tables.records, _records.request_id)
ENTRIES = _new(tables.entries, _entries.attempt_id, _entries.reason, _entries.number)
OBJECTS = _new(tables.objects)
AWAITED = _new(tables.awaited)
POISON = _new(tables.poison)
ROLLUPS = _insert(tables.rollups, _adding(tables.rollups, tables.ROLLUP_KEY))
SUMS = _insert(tables.sums, _adding(tables.sums, tables.SUMS_KEY))
TIMINGS = _insert(tables.timings, _adding(tables.timings, tables.TIMINGS_KEY))
TAG_VALUES = _new(tables.tag_values)
SECRET_USES = _insert(tables.secret_uses, _later_of_secret_uses)
"""When secrets were last used: whatever is later stays."""

SQLITE_RECORDS = _repeated(sqlite.insert(tables.records).on_conflict_do_nothing(), tables.records)
SQLITE_ENTRIES = _repeated(sqlite.insert(tables.entries).on_conflict_do_nothing(), tables.entries)
"""Without the ids of new rows: SQLite counts them, and that is enough where all are new."""

ESTIMATES_LOCKED = _of_ids(
    select(_entries.attempt_id)
    .where(_entries.reason == PRIMARY, _entries.number == ZERO, _entries.kind == ESTIMATE)
    .order_by(_entries.attempt_id)
    .with_for_update(),
    _entries.attempt_id,
)
"""Which of these attempts have an estimate as their primary entry. Until the transaction ends nobody else
corrects one of them."""

_folds = tables.folds.c
FOLDS_HELD = _of_one(
    lambda _dialect: (
        select(_folds.id, _folds.period, _folds.zone, _folds.until_ms, _folds.tags_from_ms)
        .order_by(_folds.id)
        .with_for_update(read=True)
    ),
    (),
)
"""The folds. Until the transaction ends nobody moves them on: SQLite has one writer anyway."""

TAG_VALUES_OF = _of_one(
    lambda _dialect: select(*tables.tag_values.columns).where(tables.tag_values.c.month == _int("month")), ("month",)
)
TAG_VALUES_LOCKED = Statement(
    sqlite={1: "SELECT 1"}, postgres="SELECT pg_advisory_xact_lock(7521983760418375777)", arrays=False
)
"""Any number that is ours. SQLite has one writer anyway."""

TAGS_OF_RECORDS = _of_ids(select(_records.request_id, _records.tags), _records.request_id)

ENTRIES_OF_ATTEMPTS = _of_ids(select(*tables.entries.columns), _entries.attempt_id)

_corrections = tables.entries.alias("corrections")

ESTIMATED_REQUESTS = _of_ids(
    select(_entries.request_id)
    .distinct()
    .where(
        _entries.kind == ESTIMATE,
        ~exists(
            select(literal_column("1"))
            .select_from(_corrections)
            .where(_corrections.c.attempt_id == _entries.attempt_id, _corrections.c.reason == EXACT)
        ),
    ),
    _entries.request_id,
)
"""Which of these requests have an attempt of which nothing exact is known."""

WINDOWS_OF_RECORDS = _of_ids(select(_records.request_id, _records.budgets), _records.request_id)

BUDGETS_ADDED = _insert(tables.budgets, _added_to_budgets)
BUDGETS_MADE = _new(tables.budgets, *_window)


def _counters() -> Statement:
    given = _arrays(list(_window))
    of_arrays = select(*_counter).where(tuple_(*_window).in_(select(*given.columns)))
    of_one = select(*_counter).where(*[each == bindparam(each.name, type_=each.type) for each in _window])
    return Statement(sqlite={1: str(of_one.compile(dialect=SQLITE))}, postgres=str(of_arrays.compile(dialect=POSTGRES)))


BUDGETS_READ = _counters()

BUDGET_SEEDED = _of_one(
    lambda _dialect: (
        update(tables.budgets)
        .where(_budgets.budget_id == _text("id"), _budgets.start_ms == _int("start"))
        .values(
            spent_nanousd=_budgets.spent_nanousd + _int("spent_before"),
            seeded_nanousd=_budgets.seeded_nanousd + _int("seed"),
        )
    ),
    ("spent_before", "seed", "id", "start"),
)

RULES = _of_ids(select(*tables.limits.columns), tables.limits.c.id)

YOUNG_BUDGETS = _of_one(
    lambda _dialect: (
        select(*tables.limits.columns)
        .where(tables.limits.c.kind == literal_column("'money'"), tables.limits.c.created_at_ms > _int("since"))
        .order_by(tables.limits.c.id)
    ),
    ("since",),
)
"""Those that were made after a moment."""


def _spent_of(owner: str) -> Callable[[Dialect], Select[Any]]:
    return lambda _dialect: select(cast(func.coalesce(func.sum(_rollups.cost_nanousd), ZERO), tables.INT)).where(
        _rollups[owner] == _text("owner"), _rollups.quarter_ms >= _int("start"), _rollups.quarter_ms < _int("end")
    )


SPENT_OF_TEAM = _of_one(_spent_of("team_id"), ("owner", "start", "end"))
SPENT_OF_KEY = _of_one(_spent_of("key_id"), ("owner", "start", "end"))
"""What a team, or a key, spent of what was admitted in a span."""


def _spent_by_models(dialect: Dialect) -> Select[Any]:
    position = func.instr if dialect is SQLITE else func.strpos
    spent = cast(func.coalesce(func.sum(_entries.cost_nanousd), ZERO), tables.INT)
    return (
        select(_records.key_id, _records.model_requested, spent)
        .select_from(tables.records)
        .join(tables.entries, _entries.request_id == _records.request_id)
        .where(
            and_(
                _records.team_id == _text("team"),
                _records.admitted_at_ms >= _int("start"),
                _records.admitted_at_ms < _int("end"),
                position(_records.tags, _text("tag")) > ZERO,
                position(_records.budgets, _text("naming")) == ZERO,
            )
        )
        .group_by(_records.key_id, _records.model_requested)
    )


SPENT_BY_MODELS = _of_one(_spent_by_models, ("team", "start", "end", "tag", "naming"))
"""What each key of a team spent on each model asked for, of what was admitted in a span with a tag (JSON text;
"" is any) and does not name a window (JSON text)."""
