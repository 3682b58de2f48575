from __future__ import annotations

import pytest

from app.simulator.errors import RequestRefused
from app.simulator.steering import UNSTEERED, Steerer, parse_directive, without_directives


def steer(*, header=None, model="sim-mini", prompt=""):
    return Steerer().steer(header=header, model=model, prompt=prompt)


def test_without_a_directive_nothing_is_steered():
    assert steer(prompt="an ordinary question [[1]]") is UNSTEERED
    assert steer(model="org@name") is UNSTEERED


@pytest.mark.parametrize(
    "place",
    [
        {"header": b"tokens=50 pace_ms=20"},
        {"model": "sim-mini@tokens=50,pace_ms=20"},
        {"prompt": "Say something. [[sim: tokens=50 pace_ms=20]] Thanks."},
        {"prompt": "[[sim: tokens=50]]\n[[sim:pace_ms=20]]"},
    ],
)
def test_a_directive_is_read_wherever_it_stands(place):
    steering = steer(**place)
    assert (steering.tokens, steering.pace_ms) == (50, 20)


def test_the_header_wins_over_the_prompt_and_the_prompt_over_the_model():
    steering = steer(header=b"tokens=3", prompt="[[sim: tokens=2 chunk=2]]", model="m@tokens=1,chunk=1,reasoning=1")
    assert (steering.tokens, steering.chunk, steering.reasoning) == (3, 2, 1)


def test_values_may_be_quoted_and_set_headers():
    steering = steer(header=b'header_set-cookie="a=b; Path=/" header_openai-organization=org-1')
    assert steering.headers == {"set-cookie": "a=b; Path=/", "openai-organization": "org-1"}


@pytest.mark.parametrize(
    "directive",
    [
        b"tokens",
        b"tokens=many",
        b"tokens=-1",
        b"token=5",
        b"framing=upside_down",
        b"usage=odd",
        b"error=200",
        b"headers=x",
        b"header_content-length=5",
        b'header_x="a\x01b"',
        b"header_x\xe9=1",
        b'redirect="http://x/\xe9"',
        b"tokens=5 and so on",
        b"tag=" + b"x" * 2000,
    ],
)
def test_a_directive_that_makes_no_sense_is_refused(directive):
    with pytest.raises(RequestRefused) as refused:
        steer(header=directive)
    assert refused.value.status == 400
    assert refused.value.code == "invalid_directive"


def test_a_directive_with_times_wears_off():
    steerer = Steerer()
    found = [steerer.steer(header=b"error=503 times=2 tag=a", model="m", prompt="") for _ in range(4)]
    assert [steering.error for steering in found] == [503, 503, None, None]
    assert steerer.steer(header=b"error=503 times=2 tag=b", model="m", prompt="").error == 503


def test_readers_do_not_see_directives():
    assert without_directives("What is 2+2? [[sim: tokens=5]] [[tool]]") == "What is 2+2?"
    assert without_directives("a [[link]]") == "a [[link]]"


def test_pairs_may_be_separated_as_people_like():
    assert parse_directive("a=1,b=2; c=3  d=4") == {"a": "1", "b": "2", "c": "3", "d": "4"}
