"""Several upstreams for one model: who is called, who is passed over, and what client, bill and metrics say of it."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.fakes.fleet import wait_for
from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import STREAM_HEAD, PlayedUpstream, whole

OK = json.dumps(
    {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-4o",
        "status": "completed",
        "usage": {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18},
    }
).encode()
FINE = whole(OK)
NO = b'{"error":{"message":"no","type":"t","param":null,"code":"x"}}'
DEAD = "http://127.0.0.1:1/v1"


def refusal(status: int, extra: str = "") -> list:
    return whole(NO, f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}")


class Site:
    """A gateway whose model ``fast`` has a target at each of some upstreams, in this order of priority."""

    def __init__(self, gateway: RunningGateway, upstreams: dict[str, PlayedUpstream]) -> None:
        self.gateway = gateway
        self.upstreams = upstreams

    def ask(self, **more) -> httpx.Response:
        body = {"model": "fast", "input": "hi", **more}
        return httpx.post(f"{self.gateway.base_url}/responses", json=body, headers=self.gateway.headers, timeout=20)

    def calls(self) -> dict[str, int]:
        return {name: len(each.requests) for name, each in self.upstreams.items()}

    def counted(self, upstream: str, reason: str) -> float:
        name = f'headgate_fallbacks_total{{reason="{reason}",upstream="{upstream}"}}'
        return self.gateway.metrics()[name]


@contextmanager
def site(folder, plays: dict[str, object], settings: dict[str, str] | None = None, targets: str = ""):
    """``plays``: the answer of each upstream, None for one that nobody listens at."""
    with ExitStack() as stack:
        upstreams = {
            name: stack.enter_context(PlayedUpstream(play if callable(play) else lambda _, play=play: play))
            for name, play in plays.items()
            if play is not None
        }
        lines = ["upstreams:"]
        for name in plays:
            url = upstreams[name].base_url if name in upstreams else DEAD
            more = (settings or {}).get(name, "")
            lines.append(f"  {name}: {{base_url: '{url}', timeouts: {{first_byte_s: 2}}{more and ', ' + more}}}")
        listed = targets or ", ".join(
            f"{{upstream: {name}, model: gpt-4o, priority: {number}}}" for number, name in enumerate(plays)
        )
        lines += ["models:", f"  - {{name: fast, targets: [{listed}]}}", "server: {drain_delay_s: 0}"]
        gateway = stack.enter_context(RunningGateway(folder, "\n".join(lines) + "\n"))
        yield Site(gateway, upstreams)


UNBILLED = {
    "away": (None, "unreachable"),
    "unavailable": (refusal(503), "status-503"),
    "unavailable for long": (refusal(503, "retry-after: 3\r\n"), "status-503"),
    "limited": (refusal(429), "rate-limited"),
    "limited for long": (refusal(429, "retry-after: 3\r\n"), "rate-limited"),
}
OTHERS = {
    "fine": FINE,
    "status 500": refusal(500),
    "status 400": refusal(400),
    "status 401": refusal(401),
    "reset": ["reset"],
    "silent": ["hang"],
    "a stream that has begun": [STREAM_HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n", "reset"],
}


@pytest.fixture(scope="module")
def each(tmp_path_factory):
    """A gateway with a model for each case: the first target behaves so, the second is fine."""
    plays = {name: play for name, (play, _) in UNBILLED.items()} | OTHERS
    names = {name: name.replace(" ", "-") for name in plays}
    with ExitStack() as stack:
        lines = ["upstreams:"]
        for name, play in (*plays.items(), ("spare", FINE)):
            url = DEAD
            if play is not None:
                url = stack.enter_context(PlayedUpstream(lambda _, play=play: play)).base_url
            lines.append(f"  {names.get(name, name)}: {{base_url: '{url}', timeouts: {{first_byte_s: 2}}}}")
        lines.append("models:")
        for name in names.values():
            first, second = f"{{upstream: {name}, model: m}}", "{upstream: spare, model: m, priority: 1}"
            lines.append(f'  - {{name: "{name}", targets: [{first}, {second}]}}')
        lines.append("server: {drain_delay_s: 0}")
        yield stack.enter_context(RunningGateway(tmp_path_factory.mktemp("each"), "\n".join(lines) + "\n"))


@pytest.mark.parametrize("name", UNBILLED)
def test_what_is_known_to_be_unbilled_falls_back_and_says_why(each, name):
    reason, first = UNBILLED[name][1], name.replace(" ", "-")
    body = {"model": first, "input": "hi"}
    before = len(each.records())
    answer = httpx.post(f"{each.base_url}/responses", json=body, headers=each.headers, timeout=20)
    assert answer.status_code == 200
    assert answer.headers["x-headgate-upstream"] == "spare"
    assert answer.headers["x-headgate-fallback"] == reason
    assert each.metrics()[f'headgate_fallbacks_total{{reason="{reason}",upstream="{first}"}}'] == 1
    record = each.records(wait_for=before + 1)[-1]
    assert [(entry["kind"], entry["upstream"]) for entry in record["entries"]] == [
        ("void", first),
        ("charge", "spare"),
    ]
    assert json.loads(record["decision"])["fallback"] == [[first, reason]]
    assert reason in each.command("explain", record["request_id"]).stdout


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_else_does(each, name):
    """An outcome that may be billed is never repeated, and what is wrong with a request is wrong everywhere."""
    body = {"model": name.replace(" ", "-"), "input": "hi", "stream": "stream" in name}
    before = len(each.records())
    answer = httpx.post(f"{each.base_url}/responses", json=body, headers=each.headers, timeout=20)
    assert "x-headgate-fallback" not in answer.headers
    assert answer.headers["x-headgate-upstream"] == body["model"]
    assert len(each.records(wait_for=before + 1)[-1]["entries"]) == 1


def test_the_ledger_ties_after_all_of_it(each):
    assert each.check_ledger()["ok"]


def test_three_targets_are_tried_and_no_fourth(tmp_path):
    plays = {"a": None, "b": refusal(503, "retry-after: 9\r\n"), "c": refusal(503, "retry-after: 8\r\n"), "d": FINE}
    with site(tmp_path, plays) as there:
        answer = there.ask()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "8")
        assert answer.headers["x-headgate-upstream"] == "c"
        assert answer.headers["x-headgate-fallback"] == "unreachable"
        (record,) = there.gateway.records(wait_for=1)
        assert [entry["kind"] for entry in record["entries"]] == ["void"] * 3
        assert json.loads(record["decision"])["fallback"] == [["a", "unreachable"], ["b", "status-503"]]


def test_weights_balance_within_a_priority_and_the_next_one_is_for_need(tmp_path):
    targets = (
        "{upstream: a, model: m, weight: 1}, {upstream: b, model: m, weight: 1}, {upstream: c, model: m, priority: 1}"
    )
    with site(tmp_path, {"a": FINE, "b": FINE, "c": FINE}, targets=targets) as there:
        for _ in range(40):
            assert there.ask().status_code == 200
        calls = there.calls()
        assert calls["c"] == 0
        assert min(calls["a"], calls["b"]) >= 5


def test_an_upstream_that_asked_for_a_rest_is_passed_over_until_it_is_over(tmp_path):
    def limited(_):
        return refusal(429, "retry-after: 5\r\n") if len(there.upstreams["first"].requests) == 1 else FINE

    with site(tmp_path, {"first": limited, "second": FINE}) as there:
        assert there.ask().headers["x-headgate-fallback"] == "rate-limited"
        rested = there.ask()
        assert (rested.headers["x-headgate-upstream"], rested.headers["x-headgate-fallback"]) == ("second", "resting")
        assert there.calls() == {"first": 1, "second": 2}
        assert there.gateway.metrics()['headgate_upstream_resting{upstream="first"}'] == 1
        wait_for(lambda: there.gateway.metrics()['headgate_upstream_resting{upstream="first"}'] == 0)
        again = there.ask()
        assert again.headers["x-headgate-upstream"] == "first"
        assert "x-headgate-fallback" not in again.headers


def test_one_that_rests_is_called_where_there_is_no_other_and_its_word_is_passed_on(tmp_path):
    with site(tmp_path, {"only": refusal(429, "retry-after: 7\r\n")}) as there:
        for _ in range(2):
            answer = there.ask()
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert there.calls() == {"only": 2}


def test_an_absurd_retry_after_is_brought_into_bounds(tmp_path):
    with site(tmp_path, {"only": refusal(429, "retry-after: 1000000000\r\nretry-after-ms: -4\r\n")}) as there:
        answer = there.ask()
        assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("120", "0")


def test_an_upstream_that_keeps_failing_is_left_alone_and_found_well_again(tmp_path):
    broken = True

    def play(_):
        return refusal(500) if broken else FINE

    breaker = {"first": "breaker: {failures: 3, open_s: 4}"}
    with site(tmp_path, {"first": play, "second": FINE}, breaker) as there:
        assert [there.ask().status_code for _ in range(3)] == [500] * 3
        state = 'headgate_upstream_circuit{upstream="first"}'
        assert there.gateway.metrics()[state] == 2
        answer = there.ask()
        assert (answer.status_code, answer.headers["x-headgate-fallback"]) == (200, "circuit-open")
        assert there.calls()["first"] == 3
        assert there.counted("first", "circuit-open") == 1
        wait_for(lambda: there.gateway.metrics()[state] == 1)
        assert there.ask().status_code == 500, "the probe is a real request"
        assert there.ask().headers["x-headgate-fallback"] == "circuit-open"
        broken = False
        wait_for(lambda: there.gateway.metrics()[state] == 1)
        assert [there.ask().headers["x-headgate-upstream"] for _ in range(3)] == ["first"] * 3
        assert there.gateway.metrics()[state] == 0


def test_what_leaves_no_record_is_balanced_too_and_goes_past_one_that_is_left_alone(tmp_path):
    broken = False

    def play(_):
        return refusal(500) if broken else FINE

    targets = "{upstream: a, model: gpt-4o}, {upstream: b, model: gpt-4o}"
    breaker = {"a": "breaker: {failures: 1, open_s: 60}"}
    with site(tmp_path, {"a": play, "b": FINE}, breaker, targets) as there:

        def count() -> httpx.Response:
            gateway = there.gateway
            body = {"model": "fast", "input": "hi"}
            return httpx.post(f"{gateway.base_url}/responses/input_tokens", json=body, headers=gateway.headers)

        assert {count().headers["x-headgate-upstream"] for _ in range(40)} == {"a", "b"}
        broken = True
        wait_for(lambda: there.ask().status_code == 500)
        assert {count().headers["x-headgate-upstream"] for _ in range(20)} == {"b"}


def test_where_all_are_left_alone_the_answer_comes_at_once_and_costs_nothing(tmp_path):
    breaker = "breaker: {failures: 2, open_s: 30}"
    with site(tmp_path, {"a": ["hang"], "b": None}, {"a": breaker, "b": breaker}) as there:
        for _ in range(4):
            there.ask()
        before = len(there.gateway.records(wait_for=3))
        calls = there.calls()
        answer = there.ask()
        assert there.calls() == calls
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert answer.headers["x-headgate-upstream"] == "a"
        time.sleep(0.6)
        assert len(there.gateway.records()) == before == 3
        # Refusals are written a moment later.
        explained = ("explain", answer.headers["x-headgate-request-id"])
        wait_for(lambda: there.gateway.command(*explained, check=False).returncode == 0)
        told = there.gateway.command(*explained).stdout
        assert "upstream_unreachable" in told
        assert there.gateway.check_ledger()["ok"]


def test_a_breaker_can_be_turned_off(tmp_path):
    with site(tmp_path, {"only": refusal(500)}, {"only": "breaker: off"}) as there:
        assert [there.ask().status_code for _ in range(8)] == [500] * 8
        assert there.calls() == {"only": 8}


def test_what_a_client_did_wrong_opens_nothing(tmp_path):
    with site(tmp_path, {"only": refusal(400)}, {"only": "breaker: {failures: 1}"}) as there:
        assert [there.ask().status_code for _ in range(3)] == [400] * 3


def test_a_client_that_leaves_says_nothing_of_the_upstream(tmp_path):
    with site(tmp_path, {"only": [1.5, *FINE]}, {"only": "breaker: {failures: 1}"}) as there:
        for stream in (True, False):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    f"{there.gateway.base_url}/responses",
                    json={"model": "fast", "input": "hi", "stream": stream},
                    headers=there.gateway.headers,
                    timeout=httpx.Timeout(30, read=0.5),
                )
        wait_for(lambda: there.gateway.metrics()["headgate_in_flight"] == 0)
        assert there.ask().status_code == 200


def test_the_limits_of_another_upstream_are_asked_before_it_is_called(tmp_path):
    """What protects an upstream protects it from those who come from another one as well."""
    settings = {"second": "limits: {requests_per_minute: 2}", "third": "limits: {concurrency: 5}"}
    with site(tmp_path, {"first": None, "second": FINE, "third": FINE}, settings) as there:
        assert [there.ask().headers["x-headgate-upstream"] for _ in range(3)] == ["second", "second", "third"]
        assert there.calls() == {"second": 2, "third": 1}
        assert there.gateway.check_ledger()["ok"]


def test_what_the_own_limits_of_a_target_refuse_goes_to_the_next(tmp_path):
    settings = {"first": "limits: {requests_per_minute: 1}", "second": "limits: {requests_per_minute: 1}"}
    with site(tmp_path, {"first": FINE, "second": FINE, "third": FINE}, settings) as there:
        answers = [there.ask() for _ in range(3)]
        assert [answer.headers["x-headgate-upstream"] for answer in answers] == ["first", "second", "third"]
        assert [answer.headers.get("x-headgate-fallback") for answer in answers] == [None, "limited", "limited"]
        assert json.loads(there.gateway.records(wait_for=3)[-1]["decision"])["fallback"] == [
            ["first", "limited"],
            ["second", "limited"],
        ]
        assert there.counted("first", "limited") == 2
        assert there.gateway.check_ledger()["ok"]


def test_where_the_own_limits_of_all_refuse_the_client_is_told(tmp_path):
    settings = dict.fromkeys(("first", "second"), "limits: {requests_per_minute: 1}")
    with site(tmp_path, {"first": FINE, "second": FINE}, settings) as there:
        answers = [there.ask() for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert "retry-after" in answers[2].headers


def test_a_request_that_moves_on_gives_back_what_it_held_of_the_upstream_before(tmp_path):
    settings = {
        "first": "limits: {concurrency: 1, tokens_per_minute: 3000}, breaker: off",
        "second": "limits: {concurrency: 1}",
    }
    with site(tmp_path, {"first": refusal(503), "second": FINE}, settings) as there:
        answers = [there.ask() for _ in range(4)]
        # A second call after 503 is of the retry budget; who has none left is told the 503.
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert answers[0].status_code == 200
        assert there.calls()["first"] == 4, "its lease and its tokens were free each time"
