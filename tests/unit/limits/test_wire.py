"""How commands travel: what is made once for many claims, and that it is not taken for another's."""

from __future__ import annotations

import msgspec
import pytest

from app.core.records import BudgetWindow
from app.limits import wire
from app.limits.hot import Beat, BudgetValue, Confirm, InSQL, Reserve, Seen, Settle
from app.limits.limiter import Claim, MoneyWindow, Outcome
from app.limits.redis import load_script
from app.limits.wire import Wire
from app.store.redis import Script
from tests.contract.limits.harness import TEAM, claim, concurrency, money, requests, tokens
from tests.unit.limits.packed import unpacked

LIMITS = (requests(5, mode="observe"), tokens(100), concurrency(2), money(1000, bound="estimate"))


@pytest.fixture
def stamped() -> Wire:
    return Wire(lambda token, tag: f"{token}@{tag}", lambda: "", Script("reserve", "1"), Script("settle", "2"))


def reserved(wire: Wire, a_claim: Claim) -> tuple[list[str], list[str]]:
    """The keys and arguments of a reserve, which has to be for its tag's slot."""
    key, packed = wire.reserve(Reserve(a_claim, "7"))
    keys, arguments = unpacked(packed)
    assert key == keys[0]
    return keys, arguments


def a_call(tag: str = TEAM, request_id: str = "one") -> Claim:
    return claim(*LIMITS, tokens=40, bound=70, likely=30, tag=tag, request_id=request_id)


def test_a_reserve_as_its_script_expects_it(stamped: Wire) -> None:
    keys, arguments = reserved(stamped, a_call())
    assert keys == [
        "hg:{team_1}:epoch",
        "hg:{team_1}:due",
        "hg:{team_1}:r:one",
        "hg:{team_1}:l:key_1.requests",
        "hg:{team_1}:l:key_1.tokens",
        "hg:{team_1}:l:key_1.concurrency",
        "hg:{team_1}:b:budget_1:0",
    ]
    assert arguments[:8] == ["", "7@team_1", "one", "15000", "61000", "gateway-1", '{"the":"opening"}', "70"]
    assert [arguments[start : start + 6] for start in range(8, len(arguments), 6)] == [
        ["w", "o", "1", "5", "1000", ""],
        ["w", "e", "40", "100", "1000", ""],
        ["l", "e", "1", "2", "0", ""],
        ["m", "e", "30", "1000", "0", str(2**53)],
    ]


def test_a_settlement_carries_differences(stamped: Wire) -> None:
    _, packed = stamped.settle(Settle(a_call(), "7", Outcome(2, 25, 10, b"record")))
    keys, arguments = unpacked(packed)
    assert (keys[2], keys[6]) == ("hg:{team_1}:r:one", "hg:{team_1}:b:budget_1:0")
    assert arguments[:7] == ["", "7@team_1", "one", "60000", "gateway-1", "", "70"]
    assert arguments[7:] == ["2", "25", "record", "w", "0", "w", "-30", "l", "0", "m", "0"]


def test_calls_on_the_same_limits_share_a_plan_and_nothing_else(stamped: Wire) -> None:
    first_keys, first = reserved(stamped, a_call())
    other = msgspec.structs.replace(
        a_call(request_id="two"), tokens=9, likely_nanousd=8, money=(MoneyWindow(BudgetWindow("budget_1", 5), 6),)
    )
    keys, arguments = reserved(stamped, other)
    assert (keys[2], keys[6]) == ("hg:{team_1}:r:two", "hg:{team_1}:b:budget_1:5")
    assert (first_keys[2], first_keys[6]) == ("hg:{team_1}:r:one", "hg:{team_1}:b:budget_1:0")
    assert (first[16], arguments[16]) == ("40", "9")
    assert arguments[-6:] == ["m", "e", "8", "1000", "5", "6"]
    assert repr(stamped) == "Wire(plans=1)"


def test_another_tag_or_equal_limits_of_another_make_have_plans_of_their_own(stamped: Wire) -> None:
    reserved(stamped, a_call())
    keys, _ = reserved(stamped, a_call("team_2"))
    assert keys[3] == "hg:{team_2}:l:key_1.requests"
    reserved(stamped, claim(*(msgspec.structs.replace(limit) for limit in LIMITS)))
    assert repr(stamped) == "Wire(plans=3)"


def test_whatever_a_client_writes_into_a_counter_is_only_a_name(stamped: Wire) -> None:
    """A tag's value stands in the packed part, where a percent sign and a line break mean something."""
    value = "100%d %b\r\n$3\r\n"
    keys, _ = reserved(stamped, claim(requests(5, key=value)))
    assert keys[3] == f"hg:{{team_1}}:l:{value}.requests"


def test_the_oldest_plan_makes_room(stamped: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PLANS_MAX", 3)
    for number in range(10):
        reserved(stamped, claim(tag=f"team_{number}"))
    assert list(stamped._plans) == [("team_7",), ("team_8",), ("team_9",)]


def test_limits_made_anew_for_each_request_are_never_taken_for_others(stamped: Wire) -> None:
    """Plans are found by identity: freed limits must not lend theirs to what comes to lie in their place."""
    for number in range(2000):
        keys, _ = reserved(stamped, claim(requests(5, key=f"key_{number}")))
        assert keys[3] == f"hg:{{team_1}}:l:key_{number}.requests"


def test_a_heartbeat_names_each_counter_once(stamped: Wire) -> None:
    seen = (Seen(a_call(), 3, 50), Seen(a_call(request_id="two")), Seen(claim(request_id="three")))
    keys, arguments = stamped.beat(Beat(TEAM, "7", seen, ("done",)))
    assert keys[2:] == [
        *(f"hg:{{team_1}}:r:{name}" for name in ("one", "two", "three")),
        "hg:{team_1}:l:key_1.concurrency",
    ]
    assert arguments[4:] == [3, "one", "3 50", 1, 6, "two", "0 0", 1, 6, "three", "0 0", 0, "done"]


def test_a_confirmation_names_each_budget_once(stamped: Wire) -> None:
    first, second = BudgetWindow("a", 0), BudgetWindow("b", 0)
    rows = (InSQL("one", 2, 5, (first, second)), InSQL("two", 1, 6, (second,)), InSQL("three", 2, 0, ()))
    keys, arguments = stamped.confirm(Confirm(TEAM, "7", rows, (BudgetValue(second, 9, 4),)))
    assert keys[5:] == ["hg:{team_1}:b:a:0", "hg:{team_1}:b:b:0"]
    assert arguments[4:] == [3, "one", 2, 5, 2, 6, 7, "two", 1, 6, 1, 7, "three", 2, 0, 0, 7, 9, 4]


def test_what_a_script_may_do_is_its_first_line() -> None:
    source = load_script("settle", "prelude", "reservation").source
    assert source.startswith("#!lua flags=allow-oom\n-- Goes before every script")
    assert source.index("local function find(") < source.index("-- End a reservation")
