"""Rows of the upstream, and of the names by which it is found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.fakes.fleet import wait_for
from tests.fakes.proxy import DOWN
from tests.faults.table.names import FAILED, MUTE, NOT_FOUND
from tests.faults.table.rows import Ask, Gets, Row
from tests.faults.table.worlds import World

WORTH_NO_RETRY = {"x-should-retry": "false", "retry-after": None}
OURS = {"x-headgate-upstream": "u0"}
KEPT_S = 0.1
"""No connection waits so long to be used again."""
DEAD = 'headgate_upstream_up{upstream="dead"}'


def answers(fault: str, ask: Ask, gets: Gets, **more) -> Row:
    """A fault of a single answer: what fails is counted as failed, and nothing else is."""
    ends = {} if gets.status == 200 and gets.code is None else {"failed": 1}
    return Row("upstream", fault, "embedded", ((ask, gets),), **{"ends": ends, **more})


def retried(upstream: str) -> str:
    return f'headgate_retries_total{{upstream="{upstream}"}}'


@contextmanager
def answers_lost(world: World) -> Iterator[None]:
    """Requests arrive, and nothing comes back."""
    world.parts["oneway"].stalled = DOWN
    yield
    world.parts["oneway"].stalled = None


def says(**by_name: str) -> Callable[[World], AbstractContextManager[None]]:
    @contextmanager
    def say(world: World) -> Iterator[None]:
        for name in by_name:
            if name != "mute":
                assert world.ask(Ask(model=name), world.new_user()).status == 200
        world.parts["names"].says |= {f"{name}.test": says for name, says in by_name.items()}
        time.sleep(KEPT_S)
        yield
        world.parts["names"].says.clear()
        for name in by_name:
            wait_for(lambda name=name: world.ask(Ask(model=name), world.new_user()).status == 200)

    return say


UPSTREAM = (
    answers(
        "down (refused)",
        Ask(model="dead"),
        Gets(502, "upstream_unreachable", {"retry-after": "2", "x-headgate-upstream": "dead"}, ("void", "void"), 5),
        gauges={DEAD: 0.0},
        counts={retried("dead"): 1},
    ),
    answers(
        "down, with a fallback",
        Ask(model="fallback"),
        Gets(200, headers={"x-headgate-upstream": "u0"}, kinds=("void", "charge"), within_s=5),
        counts={retried("u0"): 1},
    ),
    answers(
        "down (TLS is not spoken there)", Ask(model="tls"), Gets(502, "upstream_unreachable", {}, ("void", "void"), 5)
    ),
    answers(
        "slow (no first byte)", Ask(play="silence"), Gets(504, "upstream_timeout", WORTH_NO_RETRY, ("estimate",), 4)
    ),
    answers("slow mid-stream", Ask(play="stalls", stream=True), Gets(200, "upstream_stalled", OURS, ("estimate",), 5)),
    answers(
        "flapping (every other call is a 503)",
        Ask(play="every other 503"),
        Gets(200, kinds=("void", "charge")),
        counts={retried("u0"): 1},
    ),
    answers(
        "503, and again",
        Ask(play="503"),
        Gets(503, "x", {"retry-after": "9", **OURS}, ("void", "void")),
        counts={retried("u0"): 1},
    ),
    answers("garbage (HTML)", Ask(play="html"), Gets(502, "upstream_invalid_response", WORTH_NO_RETRY, ("estimate",))),
    answers(
        "garbage (bad JSON)",
        Ask(play="bad json"),
        Gets(502, "upstream_invalid_response", WORTH_NO_RETRY, ("estimate",)),
    ),
    answers(
        "garbage (bad gzip)",
        Ask(play="bad gzip"),
        Gets(502, "upstream_invalid_response", WORTH_NO_RETRY, ("estimate",)),
    ),
    answers(
        "garbage (not HTTP)",
        Ask(play="not http"),
        Gets(502, "upstream_invalid_response", WORTH_NO_RETRY, ("estimate",)),
    ),
    answers(
        "garbage (events)",
        Ask(play="garbage events", stream=True),
        Gets(200, kinds=("estimate",)),
        ends={"failed": 1},
    ),
    answers("no usage", Ask(play="no usage"), Gets(200, kinds=("estimate",))),
    answers(
        "reset before the answer",
        Ask(play="resets"),
        Gets(502, "upstream_outcome_unknown", WORTH_NO_RETRY, ("estimate",)),
    ),
    answers(
        "reset mid-stream",
        Ask(play="resets mid-stream", stream=True),
        Gets(200, "upstream_disconnected", OURS, ("estimate",)),
    ),
    answers("500", Ask(play="500"), Gets(500, "x", WORTH_NO_RETRY, ("estimate",))),
    answers("429", Ask(play="429"), Gets(429, "x", {"retry-after": "7", "x-should-retry": None, **OURS}, ("void",))),
    answers(
        "401",
        Ask(play="401"),
        Gets(502, "upstream_auth_failed", WORTH_NO_RETRY, ("void",)),
        told=("upstream_auth_failed",),
    ),
    answers(
        "403",
        Ask(play="403"),
        Gets(502, "upstream_auth_failed", WORTH_NO_RETRY, ("void",)),
        told=("upstream_auth_failed",),
    ),
    Row(
        "upstream",
        "partition one way (requests arrive, answers do not)",
        "embedded",
        ((Ask(model="oneway"), Gets(504, "upstream_timeout", WORTH_NO_RETRY, ("estimate",), 4)),),
        answers_lost,
        then=((Ask(model="oneway"), Gets(200, kinds=("charge",))),),
        ends={"failed": 1},
    ),
    Row(
        "upstream",
        "restart (it closes what is kept)",
        "embedded",
        ((Ask(play="fine, closing"), Gets(200, kinds=("charge",))), (Ask(), Gets(200, kinds=("charge",)))),
        counts={retried("u0"): 0},
        ends={},
    ),
    # The same by the other endpoints: streams of theirs tell their end in another way, and some tell no usage.
    answers(
        "slow mid-stream (chat)",
        Ask(play="chat stalls", stream=True, family="chat"),
        Gets(200, "upstream_stalled", OURS, ("estimate",), 5),
    ),
    answers(
        "reset mid-stream (chat)",
        Ask(play="chat resets mid-stream", stream=True, family="chat"),
        Gets(200, "upstream_disconnected", OURS, ("estimate",)),
    ),
    answers(
        "a stream without usage (chat)",
        Ask(play="chat stream", stream=True, family="chat"),
        Gets(200, kinds=("estimate",)),
    ),
    answers("no usage (chat)", Ask(play="no usage", family="chat"), Gets(200, kinds=("estimate",))),
    answers("500 (chat)", Ask(play="500", family="chat"), Gets(500, "x", WORTH_NO_RETRY, ("estimate",))),
    answers(
        "429 (embeddings)",
        Ask(play="429", family="embeddings", model="text-embedding-3-small"),
        Gets(429, "x", {"retry-after": "7", "x-should-retry": None, **OURS}, ("void",)),
    ),
    answers(
        "garbage (bad JSON, embeddings)",
        Ask(play="bad json", family="embeddings", model="text-embedding-3-small"),
        Gets(502, "upstream_invalid_response", WORTH_NO_RETRY, ("estimate",)),
    ),
)

NAMES = (
    Row(
        "DNS",
        "NXDOMAIN, and the name was never known",
        "embedded",
        ((Ask(model="nameless"), Gets(502, "upstream_unreachable", {"retry-after": "2"}, ("void", "void"), 8)),),
        gauges={'headgate_upstream_up{upstream="nameless"}': 0.0},
        ends={"failed": 1},
    ),
    Row(
        "DNS",
        "NXDOMAIN flap: the last good addresses are used",
        "named",
        ((Ask(model="known", play="fine"), Gets(200, kinds=("charge",))),) * 3,
        says(known=NOT_FOUND),
        running=((Ask(model="known", play="held"), Gets(200, kinds=("charge",))),),
        gauges={'headgate_upstream_up{upstream="known"}': 1.0},
    ),
    Row(
        "DNS",
        "fails: the last good addresses are used",
        "named",
        ((Ask(model="known"), Gets(200, kinds=("charge",), within_s=5)),),
        says(known=FAILED),
        ends={},
    ),
    Row(
        "DNS",
        "mute: after two seconds the last good addresses are used",
        "named",
        ((Ask(model="known"), Gets(200, kinds=("charge",), within_s=4)),),
        says(known=MUTE),
        ends={},
    ),
    Row(
        "DNS",
        "mute, and the name was never known",
        "named",
        ((Ask(model="mute"), Gets(502, "upstream_unreachable", {"retry-after": "2"}, ("void", "void"), 6)),),
        says(mute=MUTE),
    ),
)
