"""How long a refusal takes says nothing of whether there is such an object (Mann-Whitney, 2,000 samples of each)."""

from __future__ import annotations

import math
import random
import time

import httpx
import pytest

from tests.e2e.isolation.conftest import unknown_like
from tests.fakes.gateway import RunningGateway
from tests.fakes.stateless import Stateless, config_of

SAMPLES = 2000
TRIES = 3
"""One test in a hundred rejects what is equal; three in a row do where it is not."""
P_LEAST = 0.01


def mann_whitney_p(one: list[float], other: list[float]) -> float:
    """Two-sided, by the normal approximation; ties share their ranks."""
    ordered = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks = 0.0
    at = 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        ranks += sum(1 for each in ordered[at:end] if each[1] == 0) * (at + end + 1) / 2
        at = end
    n, m = len(one), len(other)
    u = ranks - n * (n + 1) / 2
    return math.erfc(abs(u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12) / math.sqrt(2))


def samples(world, ask, kind: str) -> tuple[list[float], list[float]]:
    foreign = [world.mine.make(kind) for _ in range(20)]
    # The owner's process knows its own by heart; what counts is what the others find.
    dice = random.Random(0)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(SAMPLES):
        pair = [(0, dice.choice(foreign)), (1, unknown_like(dice.choice(foreign)))]
        dice.shuffle(pair)
        for which, object_id in pair:
            began = time.perf_counter()
            answer = ask(object_id)
            times[which].append(time.perf_counter() - began)
            assert answer.status_code == 404
    return times


WAYS = {
    "a path": ("file", lambda client, object_id: client.get(f"/files/{object_id}")),
    "a body": (
        "response",
        lambda client, object_id: client.post(
            "/responses", json={"model": "gpt-4o", "input": "hi", "previous_response_id": object_id}
        ),
    ),
    "a list": ("batch", lambda client, object_id: client.get(f"/batches?after={object_id}")),
}


@pytest.mark.quiet
@pytest.mark.parametrize("way", ["a path", "a body", pytest.param("a list", marks=pytest.mark.long)])
def test_foreign_and_unknown_take_equally_long(world, way):
    kind, ask = WAYS[way]
    found = []
    for _ in range(TRIES):
        found.append(mann_whitney_p(*samples(world, lambda object_id: ask(world.theirs.client, object_id), kind)))
        if found[-1] > P_LEAST:
            return
    pytest.fail(f"p = {found}")


def go_on(client: httpx.Client, response_id: str) -> httpx.Response:
    return client.post("/responses", json={"model": "m0", "input": "hi", "previous_response_id": response_id})


class Kept:
    """What ``samples`` asks for, where the gateway keeps the turns: a response of the first team's."""

    def __init__(self, client: httpx.Client) -> None:
        self.mine = self
        self._client = client

    def make(self, _kind: str) -> str:
        return self._client.post("/responses", json={"model": "m0", "input": "hi"}).json()["id"]


@pytest.mark.quiet
def test_turns_that_are_kept_here(tmp_path):
    with (
        Stateless() as upstream,
        RunningGateway(tmp_path, config_of(f"base_url: '{upstream.base_url}', state: gateway")) as gateway,
    ):
        other = gateway.json("teams", "create", "--name", "other")["id"]
        keys = (gateway.key, gateway.json("keys", "create", "--team", other, "--name", "k")["key"])
        mine, theirs = (
            httpx.Client(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}, timeout=30)
            for key in keys
        )
        with mine, theirs:
            found = []
            for _ in range(TRIES):
                times = samples(Kept(mine), lambda object_id: go_on(theirs, object_id), "response")
                found.append(mann_whitney_p(*times))
                if found[-1] > P_LEAST:
                    return
    pytest.fail(f"p = {found}")


def test_the_test_sees_a_difference():
    dice = random.Random(1)
    same = [dice.gauss(1, 0.1) for _ in range(SAMPLES)]
    assert mann_whitney_p(same, [dice.gauss(1, 0.1) for _ in range(SAMPLES)]) > P_LEAST
    assert mann_whitney_p(same, [dice.gauss(1.015, 0.1) for _ in range(SAMPLES)]) < P_LEAST
