"""Pages and files of usage and records: the same rows, each once, and nobody else's."""

from __future__ import annotations

import random

import msgspec
import pytest

from app.admin import usage_pages
from app.admin.asking import Asked
from app.admin.record_pages import record_page, record_page_asked, record_parts, records_asked
from app.admin.usage_pages import page_asked, question_asked, usage_page, usage_parts
from app.admin.usage_reading import Page, Question, ask, identity_of, in_order, read_shown
from app.admin.wire import cursor_text
from app.core.clock import quarter_of
from app.core.errors import InvalidRequest
from app.core.ids import new_request_id
from app.store.batch import write_batch
from app.store.folding import fold_all, keep_fold
from app.store.keys import create_key
from app.store.teams import create_team
from app.store.usage import UsageNotTold, query
from tests.contract.store.samples import NOON_MS, entry_of, record_of

DAY_MS = 86_400_000
NOW_MS = NOON_MS + 3 * 3_600_000
RANGE = (("from", "2026-11-01"), ("to", "2026-11-30"))


@pytest.fixture
async def year(database):
    """Three teams, five keys, three models over thirty days; the cost of each is its number."""
    source = random.Random(2)
    records = []
    for number in range(1, 200):
        at_ms = NOON_MS - source.randrange(30 * DAY_MS)
        request_id = new_request_id(at_ms)
        model = f"m{number % 3}"
        key = number % 5
        records.append(
            record_of(
                request_id,
                at_ms=at_ms,
                quarter_ms=quarter_of(at_ms),
                team_id=f"t{key % 3}",
                key_id=f"k{key}",
                model=model,
                entries=(entry_of(request_id, model=model, cost_nanousd=number),),
            )
        )
    await write_batch(database, records)
    return records


def question(**values) -> Question:
    asked = Asked([*((name.replace("_", "."), value) for name, value in values.items()), *RANGE])
    return question_asked(asked, NOW_MS)


async def pages(database, asked: Question, limit: int):
    """All rows by pages, and the total that each page tells."""
    rows, totals, cursor = [], [], None
    while True:
        given = [("limit", str(limit)), *([("cursor", cursor)] if cursor else [])]
        page = await usage_page(database, *page_asked(Asked(given), asked))
        rows += page["rows"]
        totals.append(page["total"])
        cursor = page["next"]
        if cursor is None:
            assert all(total == totals[0] for total in totals)
            return rows, totals[0]


async def exported(database, asked: Question):
    return [row async for part in usage_parts(database, asked) for row in part]


@pytest.mark.parametrize(
    ("by", "sort"),
    [
        ("team", "-team"),
        ("key,day", None),
        ("key,day", "-cost"),
        ("team,model,week", None),
        ("hour", None),
        ("month,upstream", "requests"),
    ],
)
async def test_pages_and_files_hold_the_same_rows(database, year, by, sort):
    asked = question(by=by, **({"sort": sort} if sort else {}))
    whole, total = await pages(database, asked, 5000)
    for limit in (7, 60):
        assert (await pages(database, asked, limit)) == (whole, total)
    rows = await exported(database, asked)
    if sort is None:
        assert sorted(map(repr, rows)) == sorted(map(repr, whole))
    else:
        assert rows == whole
    in_range = [record for record in year if record.admitted_at_ms >= 1_793_491_200_000]
    assert total["requests"] == sum(row["requests"] for row in rows) == len(in_range)


async def test_largest_first_and_alike_by_name(database, year):
    rows, _ = await pages(database, question(by="key", sort="-cost"), 3)
    costs = [float(row["cost_usd"]) for row in rows]
    assert costs == sorted(costs, reverse=True)
    rows, _ = await pages(database, question(by="team,key", sort="-unpriced"), 2)
    assert [row["key_id"] for row in rows] == ["k0", "k3", "k1", "k4", "k2"]


@pytest.mark.parametrize(
    ("by", "sort"),
    [
        ("day,key", None),
        ("day,key", "-day"),
        ("hour,model", "-hour"),
        ("week,key,model,upstream", "week"),
        ("key,day", "-key"),
        ("team,key,day", None),
        ("model,hour", "model"),
        ("key,day,model", "-cost"),
        ("day,key", "requests"),
        ("day,key", "-saved"),
        ("day,key", "key"),
    ],
)
@pytest.mark.parametrize("is_folded", [False, True], ids=["unfolded", "folded"])
async def test_a_page_is_a_part_of_all_rows(database, year, by, sort, is_folded):
    """However little of them is read for it."""
    if is_folded:
        for period, zone in (("day", "UTC"), ("hour", "0")):
            await keep_fold(database, period, zone, 1)
        await fold_all(database, quarter_of(NOW_MS - 3 * 3_600_000))
    asked = question(by=by, not_key="k9", **({"sort": sort} if sort else {}))
    async with database.read() as connection:
        report = await ask(connection, asked)
        rows = in_order(report.rows, asked.order)
        assert len(rows) > 40
        for offset, limit in ((0, 1), (0, 20), (20, 20), (30, len(rows) - 30), (len(rows) - 5, 20)):
            after = identity_of(rows[offset - 1]) if offset else ()
            # The place is that of the row, not of its number when it was shown.
            for told in {offset, max(offset - 3, 1), offset + 3} if offset else {0}:
                shown = await read_shown(connection, asked, Page(limit, told, after))
                assert shown.rows == rows[offset : offset + limit]
                assert (shown.start, shown.is_last) == (offset, offset + limit >= len(rows))
                assert shown.total == report.total
        gone = ("gone",) * len(identity_of(rows[0]))
        shown = await read_shown(connection, asked, Page(10, 30, gone))
        assert shown.rows == rows[30:40]


async def test_keys_of_one_name_stand_among_each_other(database):
    """Whichever of them are read at once."""
    records = []
    async with database.transaction() as connection:
        made = [await create_team(connection, name=f"t{number}", now_ms=1) for number in range(6)]
        for number in range(24):
            await create_key(
                connection,
                team_id=made[number % 6].id,
                name=f"name{number // 6}",
                secret_id=f"k{number:02}",
                digest=b"%d" % number,
                now_ms=1,
            )
    for number in range(24):
        for day in range(4):
            at_ms = NOON_MS - day * DAY_MS
            request_id = new_request_id(at_ms)
            records.append(
                record_of(
                    request_id,
                    at_ms=at_ms,
                    quarter_ms=quarter_of(at_ms),
                    team_id=made[number % 6].id,
                    key_id=f"k{number:02}",
                    entries=(entry_of(request_id, cost_nanousd=1),),
                )
            )
    await write_batch(database, records)
    for sort in (None, "-key"):
        asked = question(by="key,day", **({"sort": sort} if sort else {}))
        async with database.read() as connection:
            rows = in_order((await ask(connection, asked)).rows, asked.order)
            assert [row.group["key"] for row in rows[:5]] == [f"name{0 if sort is None else 3}"] * 5
            assert len({row.key_id for row in rows[:5]}) > 1
            for limit in (40, 60, 90):
                assert (await read_shown(connection, asked, Page(limit))).rows == rows[:limit]


async def test_leaving_keys_out_is_all_less_theirs(database, year):
    everybody, _ = await pages(database, question(by="day,model"), 5000)
    without, total = await pages(database, question(by="day,model", not_key="k1,k3"), 5000)
    theirs, _ = await pages(database, question(by="day,model", key="k1,k3"), 5000)
    for row in everybody:
        parts = [
            each["requests"] for each in without + theirs if (each["day"], each["model"]) == (row["day"], row["model"])
        ]
        assert sum(parts) == row["requests"]
    assert all(row["requests"] > 0 for row in without)
    assert total["requests"] + sum(row["requests"] for row in theirs) == sum(row["requests"] for row in everybody)
    one, _ = await pages(database, question(by="day", not_key="k1", not_model="m1", team="t0"), 5000)
    wanted = [
        record
        for record in year
        if record.key_id != "k1"
        and record.model != "m1"
        and record.team_id == "t0"
        and record.admitted_at_ms >= 1_793_491_200_000
    ]
    assert sum(row["requests"] for row in one) == len(wanted)


async def test_more_rows_than_are_told_at_once_are_refused_with_what_to_do(database, year, monkeypatch):
    monkeypatch.setattr(query, "GROUPS_MAX", 50)
    # In the order of its groups a page needs only its own.
    assert (
        len((await usage_page(database, *page_asked(Asked([("limit", "20")]), question(by="day,key"))))["rows"]) == 20
    )
    with pytest.raises(UsageNotTold, match="shorter range"):
        await usage_page(database, *page_asked(Asked([]), question(by="day,key", sort="-cost")))


@pytest.mark.parametrize("by", ["hour", "day,key", "month"])
async def test_a_thousand_years_are_as_many_rows_as_there_are(database, year, by, monkeypatch):
    asks = 0

    async def counting(*args):
        nonlocal asks
        asks += 1
        return await ask(*args)

    monkeypatch.setattr(usage_pages, "ask", counting)
    asked = question_asked(Asked([("by", by), ("from", "1970-01-01"), ("to", "2998-12-31")]), NOW_MS)
    rows = await exported(database, asked)
    assert sum(row["requests"] for row in rows) == len(year)
    assert asks <= 32


async def test_nothing_is_exported_of_nothing(database):
    assert await exported(database, question(by="day,key")) == []


async def test_a_cursor_keeps_the_moment_of_the_first_page(database, year):
    first = await usage_page(
        database, *page_asked(Asked([("limit", "1")]), question_asked(Asked([("by", "day")]), NOW_MS))
    )
    later = question_asked(Asked([("by", "day")]), NOW_MS + DAY_MS)
    second = await usage_page(database, *page_asked(Asked([("limit", "1"), ("cursor", first["next"])]), later))
    assert (second["from"], second["to"]) == (first["from"], first["to"])


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        "bnVsbA",
        cursor_text([1]),
        cursor_text([0, 900_000, 1]),
        cursor_text([900_000, 0, 1, question(by="day").mark, ["a"]]),
        cursor_text([0, 901_000, 1, question(by="day").mark, ["a"]]),
        cursor_text([0, 900_000, -1, question(by="day").mark, ["a"]]),
        cursor_text([0, 900_000, 1, question(by="day").mark, ["a", "b", "c"]]),
        cursor_text([0, 2**60, 1, question(by="day").mark, ["a"]]),
    ],
)
def test_a_cursor_that_is_none_of_this_list(cursor):
    with pytest.raises(InvalidRequest) as raised:
        page_asked(Asked([("cursor", cursor)]), question(by="day"))
    assert raised.value.param == "cursor"


async def test_a_cursor_is_of_the_question_that_it_was_given_for(database, year):
    """Of another it would show some rows, and not say which."""
    asked = question(by="key,day", sort="-cost")
    cursor = (await usage_page(database, *page_asked(Asked([("limit", "2")]), asked)))["next"]
    given = [("limit", "5"), ("cursor", cursor)]
    assert page_asked(Asked(given), asked)[1].offset == 2
    others = (
        question(by="day,key", sort="-cost"),
        question(by="key,day", sort="cost"),
        question(by="key,day"),
        question(by="key,day", sort="-cost", team="t1"),
        question(by="key,day", sort="-cost", tz="Europe/Berlin"),
    )
    for other in others:
        with pytest.raises(InvalidRequest):
            page_asked(Asked(given), other)


def test_hours_of_a_year_are_for_an_export():
    asked = question_asked(Asked([("by", "hour"), ("range", "this_year")]), NOW_MS)
    with pytest.raises(InvalidRequest) as raised:
        page_asked(Asked([]), asked)
    assert raised.value.param == "by"


async def test_a_lead_sees_its_team_whatever_it_asks(database, year):
    mine = (await usage_page(database, *page_asked(Asked([]), question(team="t1"))))["total"]
    everybodys = (await usage_page(database, *page_asked(Asked([]), question())))["total"]
    assert 0 < mine["requests"] < everybodys["requests"]
    for asked in (question(), question(team="t1"), question(team="t1,t2"), question(not_team="t2")):
        page = await usage_page(database, *page_asked(Asked([]), asked.of_team("t1")))
        assert page["total"] == mine
    for asked in (question(team="t2"), question(key="k0"), question(not_team="t1")):
        page = await usage_page(database, *page_asked(Asked([]), asked.of_team("t1")))
        assert page["total"]["requests"] == 0


async def test_a_key_sees_itself_whatever_it_asks(database, year):
    mine = (await usage_page(database, *page_asked(Asked([]), question(key="k1"))))["total"]
    for asked in (question(), question(team="t1"), question(key="k1,k4"), question(not_key="k4")):
        page = await usage_page(database, *page_asked(Asked([]), asked.of_key("t1", "k1")))
        assert page["total"] == mine
    for asked in (question(key="k4"), question(team="t0"), question(not_key="k1")):
        page = await usage_page(database, *page_asked(Asked([]), asked.of_key("t1", "k1")))
        assert page["total"]["requests"] == 0


async def test_records_by_pages_and_as_a_file(database, year):
    asked = records_asked(Asked([("key", "k1,k4"), ("not.model", "m0")]), NOW_MS)
    everything = [row async for part in record_parts(database, asked, "jsonl") for row in part]
    rows, cursor = [], None
    while True:
        given = [("limit", "7"), *([("cursor", cursor)] if cursor else [])]
        page = await record_page(database, asked, *record_page_asked(Asked(given)))
        rows += page["data"]
        cursor = page["next"]
        if cursor is None:
            break
    assert rows == everything
    wanted = [record for record in year if record.key_id in {"k1", "k4"} and record.model != "m0"]
    assert len(rows) == len(wanted)
    flat = [row async for part in record_parts(database, asked, "csv") for row in part]
    assert [row["team_id"] for row in flat] == [row["team"]["id"] for row in everything]
    for only, count in (
        (asked.of_team("t1"), len(wanted)),
        (asked.of_team("t2"), 0),
        (asked.of_key("t1", "k1"), sum(record.key_id == "k1" for record in wanted)),
        (asked.of_key("t2", "k2"), 0),
    ):
        assert len([row async for part in record_parts(database, only, "csv") for row in part]) == count


@pytest.mark.parametrize(
    "cursor", ["x", cursor_text([1]), cursor_text([-1, "a"]), cursor_text([1, "a\0"]), cursor_text([1, "a" * 99])]
)
def test_a_cursor_of_records_that_is_none(cursor):
    with pytest.raises(InvalidRequest):
        record_page_asked(Asked([("cursor", cursor)]))


async def test_usage_and_records_of_one_range_tie(database, year):
    """What the rows of one add up to is the total of the other."""
    for tz, since in (("UTC", "2026-11-05"), ("Asia/Kathmandu", "2026-11-07"), ("America/St_Johns", "2026-11-11")):
        span = [("from", since), ("to", "2026-11-18"), ("tz", tz)]
        asked = question_asked(Asked(span), NOW_MS)
        total = (await usage_page(database, *page_asked(Asked([]), asked)))["total"]
        found = records_asked(Asked(span), NOW_MS)
        rows = [row async for part in record_parts(database, found, "jsonl") for row in part]
        assert total["requests"] == len(rows)
        assert round(float(total["cost_usd"]) * 1e9) == sum(round(float(row["cost_usd"]) * 1e9) for row in rows)


def test_questions_are_compared_by_what_they_say():
    assert question(by="day") == question(by="day")
    assert msgspec.structs.replace(question(by="day"), by=()) == question()
