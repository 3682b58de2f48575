"""Which target is called: by priority and weight, among those that are fit."""

from __future__ import annotations

import pytest

from app.catalog import Route
from app.core.errors import CircuitOpen, UpstreamPaused
from app.pipeline.carriage import Cargo, Carrier
from app.pipeline.routing import Passed, Routing
from app.settings import UpstreamSettings
from app.telemetry.metrics import Metrics
from app.upstream.pool import UpstreamPool

A, B, C = (Route(name, "m", 1, priority) for name, priority in (("a", 0), ("b", 0), ("c", 1)))
ALL = (A, B, C)


@pytest.fixture
async def pools():
    settings = UpstreamSettings(base_url="http://127.0.0.1:1/v1", breaker={"failures": 1, "open_s": 600})
    made = {name: UpstreamPool(name, settings) for name in "abc"}
    yield made
    for pool in made.values():
        await pool.close()


@pytest.fixture
def routing(pools) -> Routing:
    return Routing(pools, Metrics())


async def test_the_first(routing, pools):
    assert {routing.first(ALL)[0] for _ in range(100)} == {A, B}
    pools["a"].breaker.failed()
    assert {routing.first(ALL)[0] for _ in range(50)} == {B}
    assert routing.first(ALL)[1] == [Passed("a", "circuit-open")]
    pools["b"].breaker.rest(60, "m")
    assert routing.first(ALL) == (C, [Passed("a", "circuit-open"), Passed("b", "resting")])
    assert routing.first((A, Route("b", "other")))[0].upstream == "b", "another model does not rest"


async def test_what_is_behind_the_chosen_one_was_not_passed_over(routing, pools):
    pools["c"].breaker.failed()
    for _ in range(20):
        assert routing.first(ALL)[1] == []


async def test_one_that_rests_is_called_where_nobody_is_fit_but_one_that_fails_is_not(routing, pools):
    pools["a"].breaker.failed()
    pools["b"].breaker.rest(60)
    pools["c"].breaker.rest(60)
    assert routing.first(ALL) == (B, [Passed("a", "circuit-open")])
    with pytest.raises(CircuitOpen) as caught:
        routing.first((A,))
    assert 595_000 <= caught.value.retry_after_ms <= 600_000


async def test_one_that_is_paused_is_never_called(routing, pools):
    pools["a"].breaker.is_paused = True
    assert {routing.first(ALL)[0] for _ in range(50)} == {B}
    assert routing.first(ALL)[1] == [Passed("a", "paused")]
    assert not routing.may_repeat(A)
    assert routing.next((A, B), [B], "unreachable") is None
    pools["b"].breaker.rest(60)
    assert routing.first((A, B)) == (B, [Passed("a", "paused")]), "it rests, and is called where there is no other"
    pools["b"].breaker.failed()
    with pytest.raises(CircuitOpen) as caught:
        routing.first((A, B))
    assert caught.value.explanation == {"circuit_open": ["b"], "paused": ["a"]}
    assert 595_000 <= caught.value.retry_after_ms <= 600_000, "of the one that can be called again by itself"
    with pytest.raises(UpstreamPaused) as refused:
        routing.first((A,))
    assert refused.value.explanation == {"paused": ["a"]}
    pools["a"].breaker.is_paused = False
    assert routing.first((A,)) == (A, ())


async def test_what_is_tried_once_goes_to_one_that_is_fit_else_to_any(routing, pools):
    assert {routing.only(ALL) for _ in range(100)} == {A, B}
    pools["a"].breaker.failed()
    assert {routing.only(ALL) for _ in range(50)} == {B}
    pools["b"].breaker.rest(60, "m")
    assert routing.only(ALL) is C
    pools["c"].breaker.failed()
    assert {routing.only(ALL) for _ in range(100)} == {A, B}
    pools["b"].breaker.is_paused = True
    assert {routing.only(ALL) for _ in range(50)} == {A}, "one that fails, before one that is paused"


async def test_the_next(routing, pools):
    assert routing.next(ALL, [A], "unreachable") is B
    assert routing.next(ALL, [A, B], "unreachable") is C
    assert routing.next(ALL, [A, B, C], "unreachable") is None
    pools["b"].breaker.rest(60)
    assert routing.next(ALL, [A], "unreachable") is C
    assert routing.next((A, B), [A], "unreachable") is B
    assert routing.next((A, B), [A], "rate-limited") is None
    pools["b"].breaker.failed()
    assert routing.next((A, B), [A], "unreachable") is None


async def test_between_choice_and_call_others_may_have_become_the_probes(routing, pools):
    class Relay:
        usage_filter = None

        async def call(self, *_args, **_more):
            raise AssertionError("it must not be called")

    carrier = Carrier(pools, None, None, routing, None)
    cargo = Cargo(b"{}", "m", (0, 0), False, (A,), {}, [], [])
    pools["a"].breaker.failed()
    with pytest.raises(CircuitOpen):
        await carrier._ask(None, Relay(), None, cargo, A)
    pools["a"].breaker.is_paused = True
    with pytest.raises(UpstreamPaused):
        await carrier._ask(None, Relay(), None, cargo, A)


async def test_each_reason_is_counted_from_zero(pools):
    metrics = Metrics()
    Routing(pools, metrics)
    page = metrics.render().decode()
    for reason in ("unreachable", "busy", "status-503", "rate-limited", "circuit-open", "paused", "resting", "limited"):
        assert f'headgate_fallbacks_total{{reason="{reason}",upstream="a"}} 0.0' in page
