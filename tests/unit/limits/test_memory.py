"""What memory forgets by itself, and that it grows with what is held and not with what has been."""

from __future__ import annotations

from app.limits.hot import (
    BudgetValue,
    Cold,
    Confirm,
    Done,
    Granted,
    InSQL,
    Lost,
    OpenTag,
    Refused,
    Reserve,
    Seed,
    Settle,
    StandIn,
    Void,
    Voided,
)
from app.limits.limiter import Claim, Outcome
from app.limits.memory import MemoryHot
from tests.contract.limits.harness import (
    BUDGET,
    LIGHT,
    MINUTE_MS,
    TEAM,
    TestClock,
    claim,
    concurrency,
    money,
    new_id,
    requests,
    tokens,
)

DAY_MS = 86_400_000


class Store(MemoryHot):
    def __init__(self) -> None:
        self.clock = TestClock()
        super().__init__(self.clock)
        self.apply(OpenTag(TEAM, "1"))

    @property
    def gauges(self) -> int:
        return len(self._tags[TEAM].gauges)

    def serve(self, asked: Claim) -> None:
        """A whole life of a call."""
        assert isinstance(self.apply(Reserve(asked, "1")), Granted)
        self.apply(Settle(asked, "1", Outcome(2, 0, 3)))
        self.apply(Confirm(TEAM, "1", (InSQL(asked.request_id, 2, 0, ()),), ()))


def test_idle_gauges_are_dropped() -> None:
    store = Store()
    for n in range(1000):
        key = f"k{n}"
        store.serve(claim(requests(5, key=key), tokens(100, key=key), concurrency(2, key=key), tokens=5))
    assert store.gauges > 1000
    store.clock.advance(61_000)
    for _ in range(1100):
        store.clock.advance(1)
        store.serve(claim(requests(10**6, key="busy"), tokens(10**9, key="busy"), tokens=5))
    assert store.gauges == 2


def test_what_is_held_is_not_dropped() -> None:
    store = Store()
    running = claim(concurrency(1, key="long"))
    store.apply(Reserve(running, "1", lease_ms=DAY_MS))
    for _ in range(300):
        store.clock.advance(MINUTE_MS)
        store.serve(claim(requests(5, key=new_id())))
    assert isinstance(store.apply(Reserve(claim(concurrency(1, key="long")), "1")), Refused)
    store.serve(running)
    assert isinstance(store.apply(Reserve(claim(concurrency(1, key="long")), "1")), Granted)


def test_new_keys_all_the_time_do_not_pile_up() -> None:
    store = Store()
    most = 0
    for _ in range(3000):
        store.clock.advance(1000)
        store.serve(claim(requests(5, key=new_id()), concurrency(1, key=new_id())))
        most = max(most, store.gauges)
    assert most < 4 * 61
    assert len(store._tags[TEAM].reservations) < 2 * 61  # of the last minute
    assert len(store._forgets) < 2 * 61
    assert "tags=1" in repr(store)


def test_tombstones_of_every_tag_are_swept_by_any() -> None:
    store = Store()
    for _ in range(100):
        store.apply(Void(claim(tag="team_of_the_past")))
        store.apply(Reserve(claim(requests(5), tag=LIGHT), ""))  # and never settled
    store.clock.advance(61_000)
    for _ in range(100):
        store.serve(claim())
    assert not store._tags["team_of_the_past"].reservations
    assert not store._tags[LIGHT].reservations
    assert len(store._forgets) == 100


def test_what_was_put_back_over_a_tombstone_is_not_swept() -> None:
    store = Store()
    call = claim()
    store.apply(Void(call))
    store.apply(Settle(call, "1", Outcome(2, 0, 0)))
    store.clock.advance(61_000)
    for _ in range(20):
        store.serve(claim())
    assert store._tags[TEAM].reservations[call.request_id].state == "done"


def test_a_tombstone_counts_until_its_time_though_nothing_sweeps() -> None:
    store = Store()
    call = claim()
    store.apply(Void(call))
    store.clock.advance(59_999)
    assert store.apply(Reserve(call, "1")) == Voided()
    store.clock.advance(1)
    assert isinstance(store.apply(Reserve(call, "1")), Granted)


def test_a_budget_at_rest_is_cold_after_two_days_and_one_that_counts_is_not() -> None:
    store = Store()
    asked = claim(money(1000), bound=10)
    store.apply(Seed(TEAM, "1", (BudgetValue(BUDGET, 5, 1),)))

    def later() -> None:
        store.clock.advance(2 * DAY_MS)
        store.serve(claim())

    store.clock.advance(2 * DAY_MS - 1)
    store.serve(claim())
    assert isinstance(store.apply(Reserve(asked, "1")), Granted)
    later()
    assert isinstance(store.apply(Reserve(claim(money(1000)), "1")), Granted)
    store.apply(Settle(asked, "1", Outcome(2, 7, 0)))
    later()
    assert isinstance(store.apply(Reserve(claim(money(1000)), "1")), Granted)
    store.apply(Confirm(TEAM, "1", (InSQL(asked.request_id, 2, 7, (BUDGET,)),), (BudgetValue(BUDGET, 12, 2),)))
    store.apply(StandIn(TEAM, "1", "gateway-2", BUDGET, 5))
    later()
    assert isinstance(store.apply(Reserve(claim(money(1000)), "1")), Granted)
    store.apply(StandIn(TEAM, "1", "gateway-2", BUDGET, 0))
    store.serve(claim())
    assert store.apply(StandIn(TEAM, "1", "gateway-2", BUDGET, 5)) == Done(changed=False)  # its end is remembered
    later()
    assert store.apply(Reserve(claim(money(1000)), "1")) == Cold((0,))


def test_refused_requests_leave_nothing() -> None:
    store = Store()
    for _ in range(100):
        asked = claim(tokens(1, key=new_id()), concurrency(5, key=new_id()), tokens=5)
        assert isinstance(store.apply(Reserve(asked, "1")), Refused)
        store.clock.advance(1)
    store.serve(claim())
    assert not store._tags[TEAM].due
    assert len(store._tags[TEAM].reservations) == 1


def test_a_flush_loses_everything() -> None:
    store = Store()
    store.apply(Void(claim()))
    store.flush()
    assert store.apply(Reserve(claim(), "1")) == Lost(None)
    assert not store._forgets
