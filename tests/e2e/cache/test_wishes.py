"""What a request, its key and its model say about the cache, and what it is told of it."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.e2e.cache.sites import Site, cost_nanousd, word
from tests.e2e.cache.wire import EMBEDDINGS, Told
from tests.fakes.people import Key, rule

ON = {"x-headgate-cache": "on"}
OFF = {"x-headgate-cache": "off"}
REFRESH = {"x-headgate-cache": "refresh"}
ONLY = {"cache-control": "only-if-cached"}
HIT = re.compile(r"hit; ttl=(\d+)\Z")


def row(site: Site, key: Key, asked: list[dict[str, Any]], **more: Any) -> tuple[list[Told], int]:
    """The answers to the same question with each of these headers, and how many calls were made for them."""
    told, costs = costly_row(site, key, asked, **more)
    return told, len(costs)


def costly_row(site: Site, key: Key, asked: list[dict[str, Any]], **more: Any) -> tuple[list[Told], list[int]]:
    """The same, and what each of the calls cost."""
    text = f"Say {word()}."
    with site.calls() as calls:
        told = [site.ask(key, text, headers=headers, **more) for headers in asked]
    return told, [cost_nanousd(call) for call in calls]


def caches(told: list[Told]) -> list[str]:
    return [one.cache for one in told]


# -- the request ------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [OFF, {"cache-control": "no-store"}], ids=["off", "no-store"])
def test_a_request_that_wants_none_is_neither_answered_from_the_cache_nor_kept(site, key, off):
    told, calls = row(site, key, [off, {}, off, {}])
    assert caches(told) == ["bypass", "miss", "bypass", "hit"]
    assert told[0].detail == 'fwd=bypass; detail="request"'
    assert calls == 3
    assert told[3].id == told[1].id


@pytest.mark.parametrize("refresh", [REFRESH, {"cache-control": "no-cache"}], ids=["refresh", "no-cache"])
def test_a_refresh_is_a_call_whose_answer_takes_the_place_of_the_old_one(site, key, refresh):
    told, calls = row(site, key, [{}, {}, refresh, {}])
    assert caches(told) == ["miss", "hit", "miss", "hit"]
    assert told[2].detail == "fwd=request"
    assert calls == 2
    assert [one.id for one in told] == [told[0].id] * 2 + [told[2].id] * 2
    assert told[0].id != told[2].id


@pytest.mark.parametrize("stream", [False, True])
def test_a_refresh_is_of_both_forms(site, key, stream):
    """They are one entry: whoever asks in the other form is not told the old answer any more."""
    text = f"Say {word()}."
    old = [site.ask(key, text, stream=form) for form in (True, False)]
    assert caches(old) == ["miss", "hit"]
    fresh = site.ask(key, text, stream=stream, headers=REFRESH)
    told = [site.ask(key, text, stream=form) for form in (stream, not stream)]
    assert caches([fresh, *told]) == ["miss", "hit", "hit"]
    assert [one.id for one in told] == [fresh.id] * 2


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"store": True}, "store"),
        ({"temperature": None, "store": None}, "store"),
    ],
)
def test_what_is_not_certain_to_be_the_same_again_is_repeated_where_that_is_asked_for(site, key, more, reason):
    told, calls = row(site, key, [{}, {}, ON, ON, {}], **more)
    assert caches(told) == ["bypass", "bypass", "miss", "hit", "bypass"]
    assert told[0].detail == f'fwd=bypass; detail="{reason}"'
    assert calls == 4
    assert told[3].body == told[2].body


def test_on_does_not_make_more_of_what_may_never_be_repeated(site, key):
    first = site.ask(key, f"Say {word()}.", store=True)
    for more, reason in (
        ({"previous_response_id": first.id}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "hosted tool"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x/"}]}]}, "file_url"),
    ):
        told, calls = row(site, key, [ON, ON], **more)
        assert caches(told) == ["bypass", "bypass"]
        assert told[1].detail == f'fwd=bypass; detail="{reason}"'
        assert calls == 2


def test_an_answer_grows_older(site, key):
    """Clients say how old it may be, models how long it lives, and it says itself how old it is."""
    text = f"Say {word()}."
    first = site.ask(key, text)
    brief = site.ask(key, text, model="brief-model")
    assert site.ask(key, text, headers={"cache-control": "max-age=60"}).cache == "hit"
    soon = site.ask(key, text, model="brief-model")
    assert (soon.cache, soon.id) == ("hit", brief.id)
    assert soon.detail in {"hit; ttl=0", "hit; ttl=1"}
    time.sleep(1.2)

    old = site.ask(key, text)
    assert (old.cache, old.id) == ("hit", first.id)
    assert old.headers["age"] in {"1", "2"}
    assert int(HIT.fullmatch(old.detail)[1]) in {3597, 3598}
    with site.calls() as calls:
        after = [site.ask(key, text, model="brief-model") for _ in range(2)]
        fresh = site.ask(key, text, headers={"cache-control": "max-age=1"})
    assert caches([*after, fresh]) == ["miss", "hit", "miss"]
    assert len(calls) == 2
    assert after[0].id == after[1].id != brief.id
    again = site.ask(key, text, headers={"cache-control": "max-age=1, no-transform"})
    assert (again.cache, again.id) == ("hit", fresh.id)
    assert fresh.id != first.id
    assert site.ask(key, text, headers={"cache-control": "max-age=0"}).id != fresh.id


@pytest.mark.parametrize("stream", [False, True])
def test_only_if_cached_calls_nobody(site, key, stream):
    told, calls = row(site, key, [ONLY, {}, ONLY], stream=stream)
    assert (told[0].status, told[0].code, told[0].cache) == (504, "not_cached", "bypass")
    assert told[0].headers["x-should-retry"] == "false"
    assert caches(told[1:]) == ["miss", "hit"]
    assert calls == 1
    # One that was refused leaves no record.
    assert [one["cache"] for one in site.records(key, 2)] == ["miss", "hit"]
    both, calls = row(site, key, [{**ONLY, **OFF}, {"cache-control": "only-if-cached, max-age=5"}], stream=stream)
    assert [one.status for one in both] == [504, 504]
    assert calls == 0


def test_a_wish_that_nobody_understands_is_refused(site, key):
    told, calls = row(site, key, [{"x-headgate-cache": "maybe"}, {"cache-control": "max-stale=5, who-knows"}])
    assert [one.status for one in told] == [400, 200]
    assert told[0].json["error"]["param"] == "x-headgate-cache"
    assert calls == 1


# -- the key and the model --------------------------------------------------------------------


def test_a_keys_mode_goes_over_the_files_and_off_over_everything(site, key):
    site.command("keys", "update", key.id, "--cache", "off")
    followed(site, key, lambda told: told.detail == 'fwd=bypass; detail="off"')
    told, calls = row(site, key, [{}, ON, REFRESH, ONLY])
    assert caches(told) == ["bypass"] * 4
    assert [one.status for one in told] == [200, 200, 200, 504]
    assert calls == 3
    site.command("keys", "update", key.id, "--cache", "all")
    followed(site, key, lambda told: told.cache != "bypass")
    told, calls = row(site, key, [{}, {}], temperature=0.9, store=True)
    assert (caches(told), calls) == (["miss", "hit"], 1)
    told, calls = row(site, key, [{}, ON], model="off-model")
    assert (caches(told), calls) == (["bypass", "bypass"], 2)
    site.command("keys", "update", key.id, "--cache", "default")
    followed(site, key, lambda told: told.cache == "bypass", temperature=0.9)


def followed(site: Site, key: Key, holds: Any, **more: Any) -> None:
    """The change is in force soon."""
    until = time.monotonic() + 30
    while not holds(site.ask(key, f"Say {word()}.", **more)):
        assert time.monotonic() < until


def test_a_models_rule_turns_the_cache_off_or_up(site, key):
    told, calls = row(site, key, [{}, {}, ON], model="off-model")
    assert (caches(told), calls) == (["bypass"] * 3, 3)
    assert told[2].detail == 'fwd=bypass; detail="off"'
    told, calls = row(site, key, [{}, {}], model="all-model", temperature=1, store=True)
    assert (caches(told), calls) == (["miss", "hit"], 1)


def test_shadow_answers_nothing_and_measures_what_it_would_have_saved(site, key):
    def measured() -> dict[str, float]:
        metrics = site.metrics()
        names = ("headgate_cache_shadow_hits_total", "headgate_cache_shadow_saved_usd_total")
        return {
            f"{name}.{mode}": metrics.get(f'{name}{{mode="{mode}"}}', 0)
            for name in names
            for mode in ("deterministic", "all")
        }

    before = measured()
    costs: list[list[int]] = []
    for more, times in (({}, 3), ({"stream": True}, 2), ({"temperature": 0.5, "store": True}, 2)):
        told, cost = costly_row(site, key, [{}] * times, model="shadow-model", **more)
        assert caches(told) == ["bypass"] * times
        assert {one.detail for one in told} == {'fwd=bypass; detail="shadow"'}
        assert len({one.id for one in told}) == len(cost) == times, "each is a call"
        costs.append(cost)
    records = site.records(key, 7)
    assert {(one["cache"], one["saved_nanousd"]) for one in records} == {("bypass", 0)}
    added = {name: value - before[name] for name, value in measured().items()}
    # What was kept of the first call is what the others would not have cost.
    assert added == pytest.approx(
        {
            "headgate_cache_shadow_hits_total.deterministic": 3,
            "headgate_cache_shadow_hits_total.all": 1,
            "headgate_cache_shadow_saved_usd_total.deterministic": (2 * costs[0][0] + costs[1][0]) / 1e9,
            "headgate_cache_shadow_saved_usd_total.all": costs[2][0] / 1e9,
        },
        abs=1e-12,
    )
    assert min(map(min, costs)) > 0
    told, calls = row(site, key, [{}, ONLY], model="shadow-model")
    assert [one.status for one in told] == [200, 504], "what it keeps is told to nobody"
    assert calls == 1


# -- what is told -----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_hits_headers_are_its_own(site, key, stream):
    limited = site.key(rule("requests", 50, "hour"), rule("tokens", 100_000, "day"), team_id=key.team_id)
    upstreams = "header_x_ratelimit_limit_requests=7 header_x_odd=kept header_x_request_id=req_upstream"
    text = f"[[sim: {upstreams}]] Say {word()}."
    first = site.ask(limited, text, stream=stream)
    second = site.ask(limited, text, stream=stream)
    third = site.ask(key, text, stream=stream)
    assert caches([first, second, third]) == ["miss", "hit", "hit"]
    assert first.detail == "fwd=miss"
    assert all(one.body == first.body for one in (second, third))
    assert len({one.request_id for one in (first, second, third)}) == 3
    assert [one.headers["x-ratelimit-remaining-requests"] for one in (first, second)] == ["49", "48"]
    assert first.headers["x-upstream-ratelimit-limit-requests"] == "7"
    for one in (second, third):
        ttl = HIT.fullmatch(one.detail)
        assert ttl is not None and 3590 <= int(ttl[1]) <= 3600
        assert one.headers["age"] in {"0", "1"}
        assert "x-upstream-ratelimit-limit-requests" not in one.headers
        assert one.headers["x-headgate-upstream"] == "sim"
        assert one.headers["x-odd"] == first.headers["x-odd"] == "kept"
        assert one.headers["content-type"] == first.headers["content-type"]
        assert one.headers.get("x-headgate-cost-usd") == (None if stream else "0")
        assert one.headers["x-request-id"] == "req_upstream"
    assert not [name for name in third.headers if "ratelimit" in name], "it has no limits"
    assert "age" not in first.headers


def test_a_repeated_id_that_is_stored_can_be_gone_on_from_by_its_team_alone(site, key):
    colleague, stranger = site.key(team_id=key.team_id), site.key()
    text = f"My name is Ada, and my word is {word()}."
    told = [site.ask(each, text, model="all-model", store=True) for each in (key, colleague)]
    assert caches(told) == ["miss", "hit"]
    assert told[0].id == told[1].id
    further = {"model": "all-model", "previous_response_id": told[1].id, "store": True}
    answered = site.ask(colleague, "What is my name?", **further)
    assert (answered.status, answered.cache) == (200, "bypass")
    assert "Ada" in answered.json["output"][-1]["content"][0]["text"]
    assert site.ask(stranger, "What is my name?", **further).status == 404
    assert site.ask(stranger, text, model="all-model", store=True).cache == "miss"


def test_embeddings_are_repeated(site, key):
    body = {"model": "text-embedding-3-small", "input": [word(), word()]}
    with site.calls() as calls:
        told = [
            site.ask(key, path=EMBEDDINGS, body=each)
            for each in (body, body, {**body, "user": "ada"}, {**body, "dimensions": 64})
        ]
    assert caches(told) == ["miss", "hit", "hit", "miss"]
    assert [call.endpoint for call in calls] == ["embeddings", "embeddings"]
    assert told[1].body == told[0].body


def test_a_body_that_says_the_same_in_another_way_is_the_same_request(site, key):
    text = f"Say {word()}."
    first = site.ask(key, body={"model": "sim-large", "input": text, "temperature": 0, "store": False})
    same = site.ask(key, body={"temperature": 0.0, "store": False, "input": text, "model": "sim-large"})
    other = site.ask(key, body={"model": "sim-large", "input": text, "temperature": 0, "store": False, "user": "a"})
    assert caches([first, same, other]) == ["miss", "hit", "miss"]
