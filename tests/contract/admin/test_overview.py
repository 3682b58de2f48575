"""The first view: every figure of it is a sum that somebody else can make from ``usage``."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from app.admin.overview import View, overview_data
from app.admin.schemas.overview import Overview
from app.admin.wire import InForce
from app.core.clock import quarter_of
from app.core.identity import LimitRule
from app.core.ids import new_request_id
from app.settings import Configuration
from app.store.batch import write_batch
from app.store.keys import create_key
from app.store.limits import add_limit
from app.store.teams import create_team
from app.store.usage import UsageFilter, usage
from tests.contract.store.samples import entry_of, record_of

USD = 1_000_000_000


def ms(*parts):
    return round(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


NOW_MS = ms(2026, 11, 24, 15, 40)
TODAY = date(2026, 11, 24)


class _Pool:
    def __init__(self, *, reachable: bool) -> None:
        self.reachable = reachable
        self.unreachable_since_ms = None if reachable else NOW_MS - 60_000
        self.in_flight = 0


def in_force(**more) -> InForce:
    given = {
        "upstreams": {
            "openai": {"base_url": "https://api.openai.com/v1", "api_key": "sk-test-000000"},
            "gpu": {"base_url": "http://gpu-1:8000/v1"},
            "off": {"base_url": "https://api.openai.com/v1", "api_key": ""},
        },
        "models": [{"match": "*", "upstream": "openai"}],
        **more,
    }
    configuration = Configuration.model_validate(given)
    pools = {"openai": _Pool(reachable=True), "gpu": _Pool(reachable=False)}
    return InForce(configuration, None, None, pools, frozenset({"off"}))  # type: ignore[arg-type]


@pytest.fixture
async def teams(database):
    made = []
    for number, name in enumerate(("assistant", "platform")):
        async with database.transaction() as connection:
            team = await create_team(connection, name=name, now_ms=1)
            await create_key(
                connection,
                team_id=team.id,
                name=f"{name}-bot",
                secret_id=f"key000000{number}",
                digest=b"%d" % number,
                now_ms=1,
            )
        made.append(team.id)
    return made


def spent(at_ms, nanousd, team_id, key_id, **changes):
    request_id = new_request_id(at_ms)
    model = changes.get("model", "gpt-4.1-mini")
    entry = entry_of(request_id, cost_nanousd=nanousd, model=model)
    return record_of(
        request_id,
        at_ms=at_ms,
        quarter_ms=quarter_of(at_ms),
        team_id=team_id,
        key_id=key_id,
        entries=(entry,),
        model_requested=model,
        **changes,
    )


def view(**changes) -> View:
    given = {"now_ms": NOW_MS, "time_zone": "UTC", "team_ids": (), "show": "team", "reader": "admin"}
    return View(**{**given, **changes})


async def told(database, asked: View, **more):
    data = await overview_data(database, in_force(**more), asked)
    Overview.model_validate_json(msgspec.json.encode(data))
    return data


async def test_an_empty_gateway(database):
    data = await told(database, view())
    assert data["month"]["spent_usd"] == "0"
    assert (data["month"]["forecast_usd"], data["month"]["budget_usd"], data["month"]["change_percent"]) == (None,) * 3
    assert data["today"] == {"spent_usd": "0", "usual_percent": None}
    assert len(data["days"]) == 30
    assert data["legend"] == data["top_keys"] == data["top_models"] == []
    assert [item["title"] for item in data["attention"]] == ["gpu is down"]


@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Los_Angeles"])
@pytest.mark.parametrize("show", ["team", "model", "key", "tag.project"])
async def test_all_its_sums_are_those_of_usage(database, teams, time_zone, show):
    source = random.Random(8)
    records = []
    for _ in range(300):
        at_ms = NOW_MS - source.randrange(65 * 86_400_000)
        number = source.randrange(2)
        more = {"tags": {"project": source.choice("ab")}} if source.random() < 0.7 else {}
        cost = None if source.random() < 0.05 else source.randrange(10**9)
        records.append(
            spent(at_ms, cost, teams[number], f"key000000{number}", model=source.choice(("m1", "m2", "m3")), **more)
        )
    await write_batch(database, records)
    asked = view(time_zone=time_zone, show=show)
    data = await told(database, asked)
    start_ms, _ = asked.month
    async with database.read() as connection:
        report = await usage(connection, (), start_ms, asked.end_ms)
        mine = await usage(connection, (), start_ms, asked.end_ms, only=UsageFilter(team_ids=(teams[0],)))
    spent_usd = Decimal(data["month"]["spent_usd"])
    assert spent_usd == Decimal(report.total.cost_nanousd) / USD
    assert (data["requests"]["requests"], data["month"]["unpriced"]) == (report.total.requests, report.total.unpriced)
    for rows, column in ((data["days"], "cost_usd"), (data["legend"], "cost_usd"), (data["top_models"], "cost_usd")):
        assert sum(Decimal(row[column]) for row in rows) == spent_usd
    assert sum(Decimal(row["cost_usd"]) for row in data["top_keys"]) == spent_usd
    assert sum(day["unpriced"] for day in data["days"]) == report.total.unpriced
    for row in data["legend"]:
        assert sum(Decimal(day["parts"].get(row["id"], 0)) for day in data["days"]) == Decimal(row["cost_usd"])
    for day in data["days"]:
        assert sum(map(Decimal, day["parts"].values())) == Decimal(day["cost_usd"])
    own = await told(database, msgspec.structs.replace(asked, team_ids=(teams[0],)))
    assert Decimal(own["month"]["spent_usd"]) == Decimal(mine.total.cost_nanousd) / USD


async def test_a_month_is_foreseen_and_compared(database, teams):
    days = [spent(ms(2026, 9, 20) + each * 86_400_000, 10 * USD, teams[0], "key0000000") for each in range(65)]
    await write_batch(database, [*days, spent(ms(2026, 11, 24, 9), 4 * USD, teams[0], "key0000000")])
    data = await told(database, view())
    # Of each day at midnight ten dollars; today four more.
    assert data["month"]["spent_usd"] == "234"
    assert Decimal(data["month"]["forecast_usd"]) == 230 + 10 + 60
    assert data["today"]["spent_usd"] == "4"
    assert data["today"]["usual_percent"] == -60.0
    # Of October as much: twenty-four days of ten.
    assert data["month"]["change_percent"] == round(100 * (234 - 240) / 240, 1)
    assert [day["forecast_usd"] for day in data["days"][22:25]] == [None, "10", "10"]
    assert data["legend"][0]["change_percent"] == -2.5


async def test_the_month_before_may_be_shorter(database, teams):
    march = ms(2026, 3, 31, 12)
    rows = [spent(ms(2026, 2, day, 20), USD, teams[0], "key0000000") for day in (1, 28)]
    await write_batch(database, [*rows, spent(march, 4 * USD, teams[0], "key0000000")])
    data = await told(database, view(now_ms=march + 1))
    assert data["month"]["change_percent"] == 100.0


async def rule(database, team_id, maximum, **more):
    async with database.transaction() as connection:
        limit = LimitRule(id="", kind="money", maximum=maximum, window="month", **more)
        return await add_limit(connection, limit, team_id=team_id, key_id=None, now_ms=ms(2026, 1, 1))


async def test_the_budget_is_known_where_every_team_that_spends_has_one(database, teams):
    await write_batch(database, [spent(NOW_MS, USD, teams[0], "key0000000")])
    await rule(database, teams[0], 100 * USD)
    await rule(database, teams[0], 1 * USD, model="m*")
    assert (await told(database, view()))["month"]["budget_usd"] == "100"
    await write_batch(database, [spent(NOW_MS, USD, teams[1], "key0000001")])
    assert (await told(database, view()))["month"]["budget_usd"] is None
    assert (await told(database, view(team_ids=(teams[0],))))["month"]["budget_usd"] == "100"
    defaults = {"limits": {"team": {"budget_usd": 50, "budget_window": "month"}}}
    assert (await told(database, view(), **defaults))["month"]["budget_usd"] == "150"


async def test_what_needs_a_person(database, teams):
    failing = [spent(NOW_MS - 1, 0, teams[1], "key0000001", upstream="openai", outcome="failed") for _ in range(2)]
    await write_batch(
        database,
        [
            spent(NOW_MS, 93 * USD, teams[0], "key0000000"),
            spent(NOW_MS, None, teams[1], "key0000001", model="qwen3-coder"),
            *failing,
            *(spent(NOW_MS - 1, 0, teams[1], "key0000001") for _ in range(30)),
        ],
    )
    await rule(database, teams[0], 100 * USD)
    items = (await told(database, view()))["attention"]
    assert [(item["level"], item["title"]) for item in items] == [
        ("bad", "gpu is down"),
        ("bad", "assistant is at 93% of its budget"),
        ("warn", "openai is degraded"),
    ]
    of_lead = (await told(database, view(team_ids=(teams[1],), reader="lead")))["attention"]
    assert [(item["title"], item["href"]) for item in of_lead] == [
        ("1 request has no price", "/console/explore?by=model")
    ]


async def test_more_names_than_colours(database, teams):
    rows = [
        spent(NOW_MS, (number + 1) * 1000, teams[0], "key0000000", tags={"project": f"p{number:02}"})
        for number in range(60)
    ]
    await write_batch(database, rows)
    data = await told(database, view(show="tag.project"))
    assert len(data["legend"]) == 51
    assert (data["legend"][-1]["id"], data["legend"][-1]["color"]) == ("_other", 0)
    assert [row["is_other"] for row in data["legend"]] == [False] * 50 + [True]
    assert sum(Decimal(row["cost_usd"]) for row in data["legend"]) == Decimal(data["month"]["spent_usd"])
    assert {row["color"] for row in data["legend"][:-1]} == set(range(1, 9))


async def test_a_colour_stays(database, teams):
    await write_batch(database, [spent(NOW_MS, USD, teams[1], "key0000001")])
    before = (await told(database, view()))["legend"][0]["color"]
    await write_batch(database, [spent(NOW_MS, 5 * USD, teams[0], "key0000000")])
    after = {row["id"]: row["color"] for row in (await told(database, view()))["legend"]}
    assert after[teams[1]] == before
    assert len(set(after.values())) == 2


def test_today_is_the_zones(database):
    assert view(now_ms=ms(2026, 11, 24, 23, 30), time_zone="Europe/Berlin").today == TODAY + timedelta(days=1)
