"""What views of usage take, asked of a gateway over HTTP as the console asks, from the request to all of the answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.e2e.admin.people import Person
from tests.fakes.gateway import RunningGateway

ZONE = "Europe/Berlin"
RUNS = 20
AIM_MS = 200
TOKEN = "hg-admin-of-the-bench"
EIGHT = {
    "key": ",".join(f"k{number:09}" for number in range(8)),
    "model": ",".join(f"model-{number}" for number in range(8)),
    "tag.project": ",".join(f"p{number}" for number in range(1, 9)),
}
"""So many have a colour of their own in a chart."""


def explored(by: str, named_range: str, per: str) -> Iterator[tuple[str, str]]:
    """What Explore asks: the ranked members, the whole of each period, and the parts that are drawn."""
    title = f"Explore, {named_range.replace('_', ' ')} by {by}"
    groups = "key,team" if by == "key" else by
    yield f"{title}: ranked", f"/usage?by={groups}&sort=-cost&limit=200&range={named_range}"
    yield f"{title}: each {per}", f"/usage?by={per}&limit=5000&range={named_range}"
    only = f"&{by}={EIGHT[by]}" if by in EIGHT else ""
    yield f"{title}: parts of each {per}", f"/usage?by={by},{per}&limit=5000&range={named_range}{only}"


def views() -> Iterator[tuple[str, str]]:
    """Of everything that the console shows with sums in it, and what is asked of the API besides."""
    for show in ("team", "key", "model", "tag.project"):
        yield f"Overview by {show}", f"/overview?show={show}"
    yield "Overview of one team", "/overview?team=team03"
    yield "Service, 24 hours", "/service?hours=24"
    yield "Upstreams", "/upstreams"
    yield "Budgets", "/budgets"
    yield "Keys", "/keys?limit=200"
    yield "Teams", "/teams"
    yield "Prices", "/prices"
    for by in ("team", "key", "model", "tag.project"):
        yield from explored(by, "last_30_days", "day")
        yield from explored(by, "this_year", "day")
        yield from explored(by, "this_year", "week")
        yield from explored(by, "last_7_days", "hour")
    year = "&range=this_year"
    yield "Explore, year by key and model", f"/usage?by=key,model,team&sort=-cost&limit=200{year}"
    yield "Explore, year by model, one team", f"/usage?by=model&sort=-cost&team=team03&limit=200{year}"
    yield "Explore, year by key, one model", f"/usage?by=key,team&sort=-cost&model=model-9&limit=200{year}"
    yield "Explore, year by model, not one key", f"/usage?by=model&sort=-cost&not.key=k000000007&limit=200{year}"
    yield "Explore, year by key, one value of a tag", f"/usage?by=key,team&sort=-cost&tag.project=p7&limit=200{year}"
    for by in ("day,team", "day,model", "day,key", "key,day", "week,key", "day,key,model", "day,tag.project"):
        yield f"API, year by {by}, a page of 1,000", f"/usage?by={by}{year}"
    yield "API, year by day,key, highest cost first", f"/usage?by=day,key&sort=-cost{year}"
    yield "API, year by day,model, not one key", f"/usage?by=day,model&not.key=k000000007{year}"
    yield "API, year by day,key, one model", f"/usage?by=day,key&model=model-9{year}"
    for by in ("hour", "hour,team", "hour,model", "hour,key"):
        yield f"API, 30 days by {by}, a page of 1,000", f"/usage?by={by}&range=last_30_days"


def measure_views(folder: Path, url: str) -> None:
    """Prints the rows, the median and the 95th percentile of each."""
    settings = {"HEADGATE_DATABASE_URL": url, "HEADGATE_ADMIN_TOKEN": TOKEN}
    with RunningGateway(folder / "gateway", **settings) as gateway, Person(gateway, TOKEN) as admin:
        for number in range(12):
            budget = {"team_id": f"team{number:02}", "window": "month", "maximum_usd": "5000"}
            admin.ask("POST", "/budgets", json=budget)
        for number in range(20):
            budget = {
                "team_id": f"team{number % 12:02}",
                "key_id": f"k{number:09}",
                "window": "month",
                "maximum_usd": "500",
            }
            admin.ask("POST", "/budgets", json=budget)
        print(f"  {'view':<58} {'rows':>6} {'median':>9} {'p95':>9}")
        for title, path in views():
            _measure(admin, title, f"{path}{'&' if '?' in path else '?'}tz={ZONE}" if _has_zone(path) else path)


def _has_zone(path: str) -> bool:
    return path.startswith(("/usage", "/overview"))


def _measure(admin: Person, title: str, path: str) -> None:
    took: list[float] = []
    rows = 0
    for _ in range(RUNS):
        begun_s = time.perf_counter()
        answer = admin.get(path)
        took.append((time.perf_counter() - begun_s) * 1000)
        rows = _rows(answer)
    took.sort()
    p95 = took[max(int(len(took) * 0.95) - 1, 0)]
    mark = " " if p95 < AIM_MS else "!"
    print(f"{mark} {title:<58} {rows:>6} {statistics.median(took):>6.0f} ms {p95:>6.0f} ms", flush=True)


def _rows(answer: httpx.Response) -> int:
    if not answer.is_success:
        raise RuntimeError(f"{answer.request.url}: {answer.text}")
    found = answer.json()
    return len(found.get("rows") or found.get("data") or ())
