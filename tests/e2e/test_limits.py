"""Limits as a client meets them, through the door, embedded and shared: what passes, what is refused in which words,
what the headers say, and what is counted of it.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from openai import OpenAI, RateLimitError

from tests.e2e.doors import EMBEDDED, FORMS, SHARED, TOKEN_NANOUSD, Door, opened_door, outcome
from tests.fakes.fleet import wait_for
from tests.fakes.people import Key, rule

WINDOWS_S = {"minute": 60, "hour": 3600, "day": 86_400}
FOLLOWED_S = 1.0
FOLLOWED_S_MAX = 30.0
PROTECTED = {
    "narrow": "{concurrency: 1}",
    "quota": "{requests_per_minute: 2, tokens_per_minute: 5000}",
    "retried": "{requests_per_minute: 2}",
    "once": "{requests_per_minute: 1}",
}
LIMITED = (429, "rate_limit_exceeded")
TOO_LARGE = (429, "insufficient_quota")
PASSED = (200, None)


@pytest.fixture(scope="module", params=FORMS)
def door(request, tmp_path_factory):
    with opened_door(tmp_path_factory.mktemp("door"), request.param, limited=PROTECTED) as door:
        yield door


def counted(door, name: str) -> float:
    return door.gateway.metrics().get(name, 0.0)


# -- requests and tokens ----------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS_S)
def test_requests_per_window(door, window):
    key = door.people.key(rule("requests", 2, window))
    limited = f'headgate_limited_total{{limit="requests_per_{window}",scope="key"}}'
    refused = 'headgate_refused_total{code="rate_limit_exceeded"}'
    before = counted(door, limited), counted(door, refused), len(door.upstream.requests)
    answers = [door.ask(key) for _ in range(3)]
    assert [outcome(answer) for answer in answers] == [PASSED, PASSED, LIMITED]
    assert [answer.headers["x-ratelimit-limit-requests"] for answer in answers] == ["2", "2", "2"]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    told = answers[2]
    wait_ms = int(told.headers["retry-after-ms"])
    # What was counted first leaves the window when its slot does: a sixtieth of it later at most.
    assert WINDOWS_S[window] * 950 < wait_ms <= WINDOWS_S[window] * 1000 * 61 // 60
    assert int(told.headers["retry-after"]) == -(-wait_ms // 1000)
    assert "x-should-retry" not in told.headers
    assert re.fullmatch(r"(\d+h)?(\d+m)?[\d.]+s", told.headers["x-ratelimit-reset-requests"])
    error = told.json()["error"]
    assert error["type"] == "rate_limit_error"
    long = {"minute": "1m0s", "hour": "1h0m0s", "day": "24h0m0s"}[window]
    says = f"Rate limit reached: key {key.id} may make 2 requests in any {long} (requests_per_{window}). Try again in "
    assert error["message"].startswith(says)
    assert len(door.upstream.requests) == before[2] + 2
    assert (counted(door, limited), counted(door, refused)) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("window", WINDOWS_S)
def test_tokens_per_window_take_what_was_used(door, window):
    """A request reserves its estimate, and gives back what it did not use; what it used beyond it is owed."""
    key = door.people.key(rule("tokens", 1000, window))
    for _ in range(3):
        assert outcome(door.ask(key, most=800, use=(10, 10))) == PASSED
    answer = door.ask(key, most=800, use=(500, 700))
    # What is told is how it stood at admission: sixty were used, and the estimate of this one is held.
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) <= 1000 - 60 - 800
    told = door.ask(key)
    assert outcome(told) == LIMITED
    # A window has sixty slots, of which the oldest is only partly in it: exactly so long, and no less.
    assert 0 < int(told.headers["retry-after-ms"]) <= WINDOWS_S[window] * 1000 * 61 // 60
    assert told.headers["x-ratelimit-remaining-tokens"] == "0"
    assert f"key {key.id} may use 1000 tokens in any" in told.json()["error"]["message"]


def test_a_request_that_is_larger_than_its_limit_is_never_worth_a_retry(door):
    key = door.people.key(rule("tokens", 1000, "minute"))
    told = door.ask(key, most=1001)
    assert outcome(told) == TOO_LARGE
    assert "retry-after" not in told.headers and "retry-after-ms" not in told.headers
    assert told.headers["x-should-retry"] == "false"
    message = told.json()["error"]["message"]
    assert message.startswith("This request alone is larger than its limit:") and "1000 tokens" in message
    assert outcome(door.ask(key)) == PASSED, "nothing was taken for it"


def test_a_guess_never_says_that_waiting_does_not_help(door):
    """Nothing is known of a key's first request, or the last answer was as long as the limit: both fit into it."""
    cold = door.people.key(rule("tokens", 500, "minute"))
    assert outcome(door.ask(cold, most=None, use=(10, 10))) == PASSED
    long = door.people.key(rule("tokens", 1000, "hour"))
    assert outcome(door.ask(long, most=None, use=(10, 990))) == PASSED
    told = door.ask(long, most=None)
    assert outcome(told) == LIMITED
    assert int(told.headers["retry-after"]) > 3000


def test_a_call_that_came_to_nothing_takes_no_tokens(door):
    key = door.people.key(rule("tokens", 1000, "minute"), rule("concurrency", 1))
    for _ in range(3):
        answer = door.ask(key, most=900, status=400)
        assert answer.status_code == 400
        assert answer.headers["x-ratelimit-limit-tokens"] == "1000", "also on an answer that is the upstream's error"


# -- concurrency ------------------------------------------------------------------------------


def test_requests_that_run_at_once(door):
    key = door.people.key(rule("concurrency", 2))
    limited = 'headgate_limited_total{limit="concurrency",scope="key"}'
    before = counted(door, limited)
    with door.running(key) as first, door.running(key):
        told = door.ask(key)
        assert outcome(told) == LIMITED
        assert (told.headers["retry-after"], told.headers["retry-after-ms"]) == ("1", "1000")
        assert f"key {key.id} may have 2 requests running at once" in told.json()["error"]["message"]
    assert first.result().status_code == 200
    assert counted(door, limited) == before + 1
    # The lease is free before the answer is: a client that asks again at once finds room.
    assert [outcome(door.ask(key)) for _ in range(5)] == [PASSED] * 5


def test_the_sdk_waits_for_its_turn(door):
    key = door.people.key(rule("concurrency", 1))
    with (
        ThreadPoolExecutor(1) as pool,
        OpenAI(base_url=door.base_url, api_key=key.text, max_retries=3) as patient,
        OpenAI(base_url=door.base_url, api_key=key.text, max_retries=0) as impatient,
    ):
        with door.running(key):
            with pytest.raises(RateLimitError) as caught:
                impatient.responses.create(model="paid", input="hi")
            assert caught.value.code == "rate_limit_exceeded"
            answer = pool.submit(patient.responses.create, model="paid", input="hi")
            time.sleep(0.3)
        assert answer.result(20).status == "completed"


# -- whose, and for what ----------------------------------------------------------------------


def test_a_teams_limit_is_shared_by_its_keys_and_named_as_the_teams(door):
    team = door.people.team(rule("requests", 2, "minute"))
    one, other = door.people.key(team_id=team), door.people.key(team_id=team)
    assert [outcome(door.ask(key)) for key in (one, other)] == [PASSED, PASSED]
    told = door.ask(one)
    assert outcome(told) == LIMITED
    assert f"team {team} may make 2 requests" in told.json()["error"]["message"]
    assert outcome(door.ask(door.people.key())) == PASSED, "another team has nothing to do with it"


def test_a_limit_of_a_key_for_a_model_counts_that_model_only(door):
    key = door.people.key(rule("requests", 1, "minute", model="paid-*"))
    asked = [outcome(door.ask(key, model=model)) for model in ("paid-a", "paid", "free", "paid-b")]
    assert asked == [PASSED, PASSED, PASSED, LIMITED]
    told = door.ask(key, model="paid-a").json()["error"]["message"]
    assert f"key model {key.id}/paid-* may make 1 requests" in told


def test_a_limit_on_a_tag_counts_each_value_by_itself_or_the_one_it_names(door):
    key = door.people.key(
        rule("requests", 1, "minute", tag_name="project"), rule("requests", 2, "hour", tag_name="env", tag_value="prod")
    )
    tags = ["project=a", "project=b", "project=a", None, "env=dev", "env=prod", "env=prod,project=c", "env=prod"]
    passed = [door.ask(key, tags=each).status_code == 200 for each in tags]
    assert passed == [True, True, False, True, True, True, True, False]
    assert "tag project=b may make 1 requests" in door.ask(key, tags="project=b").json()["error"]["message"]
    assert "tag env=prod may make 2 requests" in door.ask(key, tags="env=prod").json()["error"]["message"]


def test_all_limits_are_taken_or_none(door):
    """The one that refuses costs the others nothing; where several refuse, the one that keeps longest is named."""
    team = door.people.team(rule("requests", 4, "day"))
    key = door.people.key(rule("concurrency", 1), rule("requests", 3, "minute"), team_id=team)
    with door.running(key):
        assert [outcome(door.ask(key)) for _ in range(3)] == [LIMITED] * 3
    assert [outcome(door.ask(key)) for _ in range(2)] == [PASSED] * 2
    told = door.ask(key)
    assert "requests_per_minute" in told.json()["error"]["message"]
    assert outcome(door.ask(door.people.key(team_id=team))) == PASSED
    assert "requests_per_day" in door.ask(key).json()["error"]["message"]


def test_the_tightest_limit_of_a_kind_is_in_the_headers(door):
    team = door.people.team(rule("requests", 50, "hour"), rule("tokens", 100_000, "day"))
    key = door.people.key(rule("requests", 10, "minute"), team_id=team)
    headers = door.ask(key).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("10", "9")
    assert headers["x-ratelimit-limit-tokens"] == "100000"
    assert re.fullmatch(r"(1m0|1m0\.\d+|60|59\.\d+)s", headers["x-ratelimit-reset-requests"])
    assert "x-ratelimit-limit-requests" not in door.ask(door.people.key()).headers


def test_an_observed_limit_is_counted_and_refuses_nothing(door):
    key = door.people.key(
        rule("requests", 1, "minute", mode="observe"),
        rule("concurrency", 1, mode="observe"),
        rule("requests", 9, "day"),
    )
    names = [
        'headgate_would_limit_total{limit="requests_per_minute",scope="key"}',
        'headgate_would_limit_total{limit="concurrency",scope="key"}',
        'headgate_limited_total{limit="requests_per_minute",scope="key"}',
        'headgate_limited_total{limit="concurrency",scope="key"}',
    ]
    before = [counted(door, name) for name in names]
    with door.running(key):
        answers = [door.ask(key) for _ in range(3)]
    assert [outcome(answer) for answer in answers] == [PASSED] * 3
    # A client that paces itself would obey a limit that is only observed.
    assert answers[0].headers["x-ratelimit-limit-requests"] == "9"
    assert [counted(door, name) - was for name, was in zip(names, before, strict=True)] == [3, 3, 0, 0]


# -- what protects an upstream ----------------------------------------------------------------


def test_an_upstreams_limit_binds_all_teams_and_takes_nothing_of_theirs(door):
    keys = [door.people.key(rule("requests", 3, "hour")) for _ in range(2)]
    limited = 'headgate_limited_total{limit="concurrency",scope="upstream"}'
    before = counted(door, limited)
    with door.running(keys[0], model="narrow"):
        for _ in range(4):
            told = door.ask(keys[1], model="narrow")
            assert outcome(told) == LIMITED
            assert told.headers["retry-after"] == "1"
            assert "upstream narrow may have 1 requests running at once" in told.json()["error"]["message"]
        assert outcome(door.ask(keys[1])) == PASSED, "another upstream is free"
    assert counted(door, limited) == before + 4
    assert [outcome(door.ask(keys[1], model="narrow")) for _ in range(3)] == [PASSED, PASSED, LIMITED]


def test_what_a_key_may_not_do_takes_nothing_of_an_upstream(door):
    """A refusal by the key's own limit gives back what the upstream's had taken, at once."""
    spent, fresh = door.people.key(rule("requests", 1, "day")), door.people.key()
    assert outcome(door.ask(spent)) == PASSED
    for _ in range(5):
        assert outcome(door.ask(spent, model="narrow")) == LIMITED
        wait_for(lambda: outcome(door.ask(fresh, model="narrow")) == PASSED, 10)


def test_requests_and_tokens_of_an_upstream_are_bounded_whoever_asks(door):
    keys = [door.people.key() for _ in range(3)]
    assert outcome(door.ask(keys[0], model="quota", most=5001)) == TOO_LARGE
    asked = [door.ask(key, model="quota", most=100) for key in keys]
    assert [outcome(answer) for answer in asked] == [PASSED, PASSED, LIMITED]
    assert "upstream quota may make 2 requests in any 1m0s" in asked[2].json()["error"]["message"]
    # They are nobody's own: a key without limits is told nothing of them.
    assert "x-ratelimit-limit-requests" not in asked[0].headers


def test_a_second_attempt_takes_of_the_upstreams_requests(door):
    """Two in a minute: the first call and its repetition take both, and the next one is not repeated."""
    key = door.people.key()
    before = len(door.upstream.requests)
    assert door.ask(key, model="retried", status=503).status_code == 503
    assert len(door.upstream.requests) == before + 2
    assert outcome(door.ask(key, model="retried", status=503)) == LIMITED
    assert door.ask(key, model="once", status=503).status_code == 503
    assert len(door.upstream.requests) == before + 3


# -- changes ----------------------------------------------------------------------------------


def followed_s(doors: list[Door], key: Key, wanted: tuple[int, str | None]) -> list[float]:
    """How long each door took to answer so, in seconds from now."""
    began_s = time.monotonic()
    took: dict[Door, float] = {}
    while len(took) < len(doors):
        for each in doors:
            if each not in took and outcome(each.ask(key, model="free", use=(0, 0))) == wanted:
                took[each] = time.monotonic() - began_s
        assert time.monotonic() - began_s < FOLLOWED_S_MAX
    return list(took.values())


def follow_changes(doors: list[Door], key: Key) -> None:
    """A command's changes are in force soon after it has ended, at every gateway of the ledger."""
    first = doors[0]
    assert outcome(first.ask(key)) == PASSED
    added = first.json("limits", "add", "--key", key.id, "--tokens", "1", "--window", "day")
    took = followed_s(doors, key, TOO_LARGE)
    for maximum, wanted in (("100000", PASSED), ("1", TOO_LARGE)):
        first.command("limits", "update", added["id"], "--tokens", maximum)
        took += followed_s(doors, key, wanted)
    first.command("limits", "remove", added["id"])
    took += followed_s(doors, key, PASSED)
    # A machine that is busy with other things may be late for one of them.
    assert sorted(took)[-2] < FOLLOWED_S, took


@pytest.mark.quiet
def test_a_limit_that_is_set_changed_and_removed_is_in_force_within_a_second(door):
    follow_changes([door], door.people.key())


def test_what_was_counted_stays_when_a_maximum_changes(door):
    key = door.people.key(rule("requests", 3, "hour"))
    assert [outcome(door.ask(key)) for _ in range(3)] == [PASSED] * 3
    door.people.update(key.limits[0], maximum=4)
    wait_for(lambda: door.ask(key).headers["x-ratelimit-limit-requests"] == "4")
    assert outcome(door.ask(key)) == LIMITED, "the fourth was the one that found it raised"


def test_nothing_is_left_over(door):
    """Run last."""
    door.settled()
    assert door.gateway.metrics()["headgate_in_flight"] == 0
    assert door.json("check", "--ledger")["ok"]
    rows = httpx.get(f"{door.gateway.url}/metrics").text
    assert "sk-hg-" not in rows


# -- two gateways, and defaults ---------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two gateways on one Redis and one PostgreSQL."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    with opened_door(folders[0], SHARED) as first, first.twin(folders[1]) as second:
        yield [first, second]


@pytest.mark.quiet
def test_a_change_is_in_force_in_every_gateway_within_a_second(pair):
    follow_changes(pair, pair[0].people.key())


def test_a_limit_holds_over_all_gateways_to_the_request(pair):
    key = pair[0].people.key(rule("requests", 7, "minute"), rule("money", 20 * TOKEN_NANOUSD, "total"))
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda number: outcome(pair[number % 2].ask(key)), range(24)))
    assert told.count(PASSED) == 7
    assert set(told) == {PASSED, LIMITED}
    spender = pair[0].people.key(rule("money", 10 * TOKEN_NANOUSD, "total"))
    spent = [outcome(pair[number % 2].ask(spender, use=(1, 3), most=3)) for number in range(6)]
    assert spent == [PASSED] * 3 + [TOO_LARGE] * 3


def test_requests_that_run_at_one_gateway_count_at_the_other(pair):
    first, second = pair
    key = first.people.key(rule("concurrency", 1), rule("money", 10 * TOKEN_NANOUSD, "total"))
    with first.running(key, most=9):
        assert outcome(second.ask(key)) == LIMITED
        second.people.remove(key.limits[0])
        wait_for(lambda: "budget_held" in second.ask(key, most=5).json()["error"]["message"])
    assert outcome(second.ask(key, most=9)) == PASSED


DEFAULTS = """
limits:
  key: {requests_per_day: 2, budget_usd: 0.02, budget_window: total}
  team: {concurrency: 1, mode: observe}
"""


def test_defaults_bind_whoever_has_no_limit_of_that_kind_and_window(tmp_path):
    with opened_door(tmp_path, EMBEDDED, DEFAULTS) as door:
        plain = door.people.key()
        own = door.people.key(rule("requests", 3, "day"), rule("requests", 9, "minute"))
        spender = door.people.key(rule("requests", 9, "day"))
        assert [outcome(door.ask(plain)) for _ in range(3)] == [PASSED, PASSED, LIMITED]
        assert [outcome(door.ask(own)) for _ in range(4)] == [PASSED, PASSED, PASSED, LIMITED]
        assert [outcome(door.ask(spender, use=(1, 9), most=9)) for _ in range(3)] == [PASSED, PASSED, TOO_LARGE]
        assert (
            f"key {spender.id} has a budget of $0.02 in total" in door.ask(spender, most=9).json()["error"]["message"]
        )
        with door.running(spender, model="free"):
            assert outcome(door.ask(spender, model="free")) == PASSED, "of the team's default it is only told"
        assert door.gateway.metrics()['headgate_would_limit_total{limit="concurrency",scope="team"}'] == 1
        assert door.limits(plain) == [], "what the file says is in the file"
        door.gateway.config.write_text(
            door.gateway.config.read_text().replace("requests_per_day: 2", "requests_per_day: 5")
        )
        wait_for(lambda: door.ask(plain, use=(0, 0)).headers["x-ratelimit-limit-requests"] == "5")
