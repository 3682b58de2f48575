"""When an upstream is left alone, and when it is tried again: no clock but the test's."""

from __future__ import annotations

import random

import pytest

from app.settings import BreakerSettings
from app.upstream.breaker import REST_S_MAX, RESTS_MAX, Breaker, Call


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker(clock, **settings) -> Breaker:
    return Breaker(BreakerSettings(**{"open_s": 10, **settings}), clock)


def test_it_opens_after_so_many_failures_in_a_row_and_not_before(clock):
    one = breaker(clock, failures=3)
    for _ in range(2):
        one.failed(one.begin())
    assert (one.state, one.unfit()) == ("closed", None)
    one.succeeded(one.begin())
    for _ in range(2):
        one.failed(one.begin())
    assert one.state == "closed"
    one.failed(one.begin())
    assert (one.state, one.unfit(), one.opens_again_s) == ("open", "circuit-open", 10)


def test_it_opens_at_a_share_of_enough_calls_in_the_window(clock):
    one = breaker(clock, failures=100, failed_percent=50, calls_min=20, window_s=30)
    for number in range(18):
        (one.failed if number % 2 else one.succeeded)(one.begin())
        clock.now_s += 1
    assert one.state == "closed", "nine of eighteen: too few calls to tell"
    one.succeeded(one.begin())
    one.failed(one.begin())
    assert one.state == "open"


def test_what_has_passed_out_of_the_window_does_not_count(clock):
    one = breaker(clock, failures=100, failed_percent=50, calls_min=10, window_s=10)
    for _ in range(9):
        one.failed(one.begin())
    clock.now_s += 11
    one.failed(one.begin())
    assert one.state == "closed"
    clock.now_s += 1000
    for _ in range(9):
        one.failed(one.begin())
    assert one.state == "closed"
    one.failed(one.begin())
    assert one.state == "open"


def test_it_lets_probes_through_one_at_a_time_and_closes_with_the_first_that_succeeds(clock):
    one = breaker(clock, failures=1, open_s=10)
    one.failed(one.begin())
    clock.now_s += 9.9
    assert one.unfit() == "circuit-open"
    clock.now_s += 0.1
    assert (one.state, one.unfit()) == ("half-open", None)
    probe = one.begin()
    assert one.unfit() == "circuit-open", "another one has to wait for what comes of it"
    one.succeeded(probe)
    assert (one.state, one.unfit()) == ("closed", None)


def test_a_probe_that_fails_opens_it_for_as_long_again(clock):
    one = breaker(clock, failures=1, open_s=10)
    one.failed(one.begin())
    clock.now_s += 10
    one.failed(one.begin())
    assert (one.state, one.opens_again_s) == ("open", 10)


def test_a_probe_of_which_nothing_is_known_gives_its_place_back(clock):
    one = breaker(clock, failures=1, open_s=10, probes=2)
    one.failed(one.begin())
    clock.now_s += 10
    tickets = [one.begin(), one.begin()]
    assert one.unfit() == "circuit-open"
    one.forget(tickets[0])
    assert one.unfit() is None


def test_a_probe_that_hangs_keeps_the_upstream_away_no_longer_than_a_failed_one(clock):
    one = breaker(clock, failures=1, open_s=10)
    one.failed(one.begin())
    clock.now_s += 10
    one.begin()
    clock.now_s += 9.9
    assert one.unfit() == "circuit-open"
    clock.now_s += 0.1
    assert one.unfit() is None


def test_calls_from_before_it_opened_decide_nothing_afterwards(clock):
    one = breaker(clock, failures=1, open_s=10)
    late = [one.begin() for _ in range(3)]
    one.failed(one.begin())
    one.succeeded(late[0])
    assert one.state == "open"
    clock.now_s += 10
    one.failed(late[1])
    one.succeeded(late[2])
    assert one.state == "half-open"


def test_a_probe_of_an_earlier_time_decides_nothing(clock):
    one = breaker(clock, failures=1, open_s=10)
    one.failed(one.begin())
    clock.now_s += 10
    hanging = one.begin()
    clock.now_s += 10
    one.failed(one.begin())
    one.succeeded(hanging)
    assert one.state == "open"


def test_streams_that_break_off_are_failures_too(clock):
    one = breaker(clock, failures=100, failed_percent=50, calls_min=10)
    for number in range(10):
        one.succeeded(one.begin())
        if number % 2:
            one.broke_off()
    assert one.state == "open"


def rests_s(one, clock, model="") -> float:
    begun_s = clock.now_s
    while one.unfit(model) == "resting":
        clock.now_s += 1
    return clock.now_s - begun_s


def test_a_rest_is_kept_and_bounded_and_ends_by_itself(clock):
    one = breaker(clock)
    one.rest(7)
    one.rest(1)
    assert (one.unfit(), one.unfit("gpt-4o"), one.rests, one.state) == ("resting", "resting", True, "closed")
    assert rests_s(one, clock) == 7
    assert (one.unfit(), one.rests) == (None, False)
    for absurd in (1e9, float("inf")):
        one.rest(absurd)
        assert rests_s(one, clock) == REST_S_MAX
    one.rest(-5)
    assert one.unfit() is None


def test_a_model_rests_alone_and_their_number_is_bounded(clock):
    """Providers limit each model for itself: what one has used up must not keep the others away."""
    one = breaker(clock)
    one.rest(7, "gpt-4o")
    assert (one.unfit("gpt-4o"), one.unfit("gpt-4.1"), one.rests) == ("resting", None, True)
    for number in range(1000):
        one.rest(5, f"m{number}")
    assert len(one._rests) == RESTS_MAX
    clock.now_s += 6
    one.rest(5, "late")
    assert set(one._rests) == {"gpt-4o", "late"}


def test_turned_off_it_never_opens_but_a_rest_is_kept(clock):
    one = Breaker(None, clock)
    for _ in range(1000):
        one.failed(one.begin())
    assert (one.state, one.unfit()) == ("closed", None)
    one.rest(5)
    assert one.unfit() == "resting"


def test_it_says_how_it_stands(clock):
    one = breaker(clock, failures=2)
    one.failed()
    assert repr(one) == "Breaker(closed, failures_in_a_row=1, probes=0)"
    one.failed()
    one.rest(3)
    assert repr(one) == "Breaker(open, resting, failures_in_a_row=2, probes=0)"


def test_whatever_happens_it_is_tried_again_within_its_time_and_probes_are_bounded(clock):
    """Random lives: never more probes than may be, but for those that hang; never shut for long."""
    chance = random.Random(7)
    for _ in range(200):
        one = breaker(clock, failures=3, open_s=5, probes=2, calls_min=5)
        running: list[int] = []
        shut_since = None
        for _ in range(300):
            clock.now_s += chance.choice((0, 0.01, 0.5, 2))
            if one.unfit() is None:
                shut_since = None
                running.append(one.begin())
            else:
                shut_since = clock.now_s if shut_since is None else shut_since
                # A probe may fail just before another one may be made.
                assert clock.now_s - shut_since <= 2 * 5 + 2
            if running and chance.random() < 0.6:
                ticket = running.pop(chance.randrange(len(running)))
                chance.choice((one.failed, one.failed, one.succeeded, one.forget))(ticket)
            assert one._probes <= 2 + 300 // 5


def test_of_a_call_it_is_told_once_and_again_only_where_it_breaks_off(clock):
    one = breaker(clock, failures=2)
    for ending in ("failed", "forget"):
        call = Call(one)
        call.answered()
        call.answered()
        getattr(call, ending)()
        call.failed()
    assert "failures_in_a_row=1" in repr(one) or one.state == "closed"
    for _ in range(2):
        call = Call(one)
        call.failed()
        call.failed()
        call.forget()
    assert one.state == "open"
    clock.now_s += 11
    probe = Call(one)
    assert one.unfit() == "circuit-open"
    probe.forget()
    probe.forget()
    assert one.unfit() is None
    probe = Call(one)
    probe.answered()
    assert one.state == "closed"
