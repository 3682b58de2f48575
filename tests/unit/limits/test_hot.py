"""Tokens, and what is said where the store is away."""

from __future__ import annotations

import asyncio

import pytest

from app.limits import redis
from app.limits.hot import Done, OpenTag, Seed, StoreAway, number_of
from app.limits.redis import RedisHot
from tests.unit.limits.packed import unpacked


class Server:
    """A client that notes what it is asked to send; ``run_id`` None is no connection."""

    def __init__(self) -> None:
        self.run_id: str | None = "run-1"
        self.sent: list[object] = []

    def run_id_for(self, key: str) -> str | None:
        assert key.startswith("hg:{")
        return self.run_id

    def call_packed(self, _script, key, packed):
        self._send(key, packed)
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        answer.set_result([6, 1])
        return answer

    def post_packed(self, _script, key, packed, _on_answer=None, _on_lost=None) -> None:
        self._send(key, packed)

    def _send(self, key, packed):
        keys, args = unpacked(packed)
        assert key == keys[0]
        self.sent.append(args[0])


@pytest.mark.parametrize(("token", "number"), [("7", 7), ("7:", 7), ("12:4f2a:x", 12)])
def test_a_token_begins_with_the_epochs_number(token: str, number: int) -> None:
    assert number_of(token) == number


async def test_tokens_carry_the_run_that_the_command_is_sent_to() -> None:
    server = Server()
    hot = RedisHot(server)
    assert await hot.do(OpenTag("a", "7")) == Done()
    server.run_id = "run-2"
    assert await hot.do(OpenTag("a", "7")) == Done()
    server.run_id = None
    hot.post(Seed("a", "7", ()))  # kept for whoever comes back: if it is the same run, nothing was lost
    assert server.sent == ["7:run-1", "7:run-2", "7:run-2"]


async def test_a_tag_that_was_never_reached_has_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "RUNS_MAX", 2)
    server = Server()
    hot = RedisHot(server)
    for tag in "abc":
        await hot.do(OpenTag(tag, "7"))
    server.run_id = None
    lost: list[str] = []
    for tag in "abcd":
        hot.post(Seed(tag, "7", ()), None, lambda tag=tag: lost.append(tag))
    assert lost == ["a", "b", "d"]  # of those that were reached, the latest are remembered
    with pytest.raises(StoreAway) as caught:
        await hot.do(OpenTag("d", "7"))
    assert not caught.value.sent
