"""Those who ask, and what they were told: the client's side of the truth."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from tests.faults.chaos.gateways import Gateway
from tests.faults.chaos.people import Person

ANSWER_S_MAX = 9.0
WORDS = "river gate channel water sluice weir lock mill stone reed bank current ford".split()


class Told(msgspec.Struct):
    """One call, as its client saw it. ``usage``: (input, cached, output) where it was told."""

    key: str
    gateway: str
    life: int
    at_s: float
    stream: bool
    request_id: str = ""
    status: int = 0
    code: str = ""
    whole: bool = False
    left: bool = False
    usage: tuple[int, int, int] | None = None
    cost_usd: str | None = None
    took_s: float = 0.0


class Shape(msgspec.Struct):
    """A call that somebody makes. ``leaves_after_s``: the client does not wait for the end."""

    path: str
    body: dict[str, Any]
    stream: bool
    leaves_after_s: float | None = None


def shape_of(draw: random.Random, origin: str) -> Shape:
    """Mostly ordinary; some slow, broken, refused or cut; one in ten is left early. ``origin`` (of letters,
    digits, ``-`` and ``.``) goes with the model's name, so that the upstream's log has it.
    """
    family = draw.choices(["responses", "chat", "embeddings"], [6, 4, 1])[0]
    stream = family != "embeddings" and draw.random() < 0.6
    steer = {"tokens": draw.randint(3, 60)}
    if draw.random() < 0.6:
        steer["pace_ms"] = draw.choice([2, 10, 30])
    mishap = draw.random()
    if mishap < 0.22:
        steer |= draw.choice(MISHAPS_OF_STREAMS if stream else MISHAPS)
    text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 60)))
    prompt = f"[[sim: {' '.join(f'{name}={value}' for name, value in steer.items())}]] {text} {draw.random()}"
    leaves = draw.uniform(0.02, 1.2) if draw.random() < 0.1 else None
    path, body = _call_of(family, prompt, stream, draw)
    if "reasoning" in steer and family != "embeddings":
        # In chat nobody sees thought: that a model thinks, its name has to tell.
        body["model"] = "sim-reasoning"
    body["model"] += f"@tag={origin}"
    return Shape(path, body, stream, leaves)


MISHAPS: list[dict[str, Any]] = [
    {"error": 429},
    {"error": 400},
    {"error": 500},
    {"error": 503},
    {"cut": "head"},
    {"cut_after": 1},
    {"usage": "missing"},
    {"usage": "negative"},
    {"first_ms": 1200},
    {"first_ms": 4000},
    {"reasoning": 30},
    {"html": 1},
]
MISHAPS_OF_STREAMS: list[dict[str, Any]] = [
    *MISHAPS,
    {"cut_after": 6},
    {"cut_after": 9, "cut_how": "reset"},
    {"cut_after": 7, "mid": 1},
    {"fail_after": 5},
    {"fail_after": 8, "fail_usage": 0},
    {"stall_after": 7, "stall_s": 6},
    {"stall_after": 5, "stall_s": 1},
]


def _call_of(family: str, prompt: str, stream: bool, draw: random.Random) -> tuple[str, dict[str, Any]]:
    bound = draw.choice([None, 64, 64, 100])
    if family == "embeddings":
        return "/v1/embeddings", {"model": "sim-embedding", "input": prompt}
    model = draw.choice(["sim-mini", "sim-mini", "sim-large", "sim-reasoning"])
    body: dict[str, Any] = {"model": model, "stream": stream}
    if family == "responses":
        body["input"] = prompt
        body["store"] = draw.random() < 0.2
        if bound is not None:
            body["max_output_tokens"] = bound
        return "/v1/responses", body
    body["messages"] = [{"role": "user", "content": prompt}]
    if stream and draw.random() < 0.8:
        body["stream_options"] = {"include_usage": True}
    if bound is not None:
        body["max_completion_tokens"] = bound
    return "/v1/chat/completions", body


class Crowd:
    """Some clients that ask one call after the other, of whichever gateway they choose."""

    def __init__(self, seed: str, people: list[Person], gateways: list[Gateway], size: int, think_s: float) -> None:
        self.told: list[Told] = []
        self.people = people
        self._gateways = gateways
        self._seed = seed
        self._size = size
        self._think_s = think_s
        self._began_s = time.monotonic()
        self.running = 0
        """Calls that are under way."""

    def codes(self) -> Counter[str]:
        """Refusals, by code."""
        return Counter(told.code for told in self.told if told.code)

    async def ask(self, until: Callable[[], bool]) -> None:
        """All of them, until it is so."""
        self._began_s = time.monotonic()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(self._client(session, number, until) for number in range(self._size)))

    async def _client(self, session: aiohttp.ClientSession, number: int, until: Callable[[], bool]) -> None:
        draw = random.Random(f"{self._seed}-{number}")
        weights = [person.weight for person in self.people]
        while not until():
            person = draw.choices(self.people, weights)[0]
            gateway = draw.choice(self._gateways)
            shape = shape_of(draw, f"{person.team}-{person.name}.{gateway.name}.{gateway.lives}")
            if gateway.is_up:
                await self._call(session, person, gateway, shape)
            await asyncio.sleep(self._think_s * 2 * draw.random())

    async def _call(self, session: aiohttp.ClientSession, person: Person, gateway: Gateway, shape: Shape) -> None:
        began_s = time.monotonic()
        told = Told(person.name, gateway.name, gateway.lives, began_s - self._began_s, shape.stream)
        self.told.append(told)
        self.running += 1
        try:
            async with asyncio.timeout(shape.leaves_after_s or ANSWER_S_MAX):
                await call(session, person.text, gateway.url, shape, told)
        except TimeoutError:
            told.left = True
        except (aiohttp.ClientError, OSError, ValueError):
            # The connection broke, or the end of it did: nothing was told for certain.
            told.whole = False
        finally:
            self.running -= 1
        told.took_s = time.monotonic() - began_s


async def call(session: aiohttp.ClientSession, key: str, url: str, shape: Shape, told: Told) -> None:
    """One call; ``told`` is filled in as far as it comes."""
    headers = {"authorization": f"Bearer {key}"}
    async with session.post(f"{url}{shape.path}", json=shape.body, headers=headers) as answer:
        told.status = answer.status
        told.request_id = answer.headers.get("x-headgate-request-id", "")
        told.cost_usd = answer.headers.get("x-headgate-cost-usd")
        body = await answer.read()
    if shape.stream and told.status == 200:
        _read_events(body, told)
        return
    told.whole = True
    document = json.loads(body)
    if told.status >= 400:
        told.code = document["error"]["code"] or f"upstream {told.status}"
    else:
        told.usage = usage_of(document)


def _read_events(body: bytes, told: Told) -> None:
    for line in body.splitlines():
        if not line.startswith(b"data: {"):
            told.whole = told.whole or line == b"data: [DONE]"
            continue
        event = json.loads(line.removeprefix(b"data: "))
        if event.get("type") in {"response.completed", "response.incomplete"}:
            told.whole = True
        told.usage = usage_of(event.get("response") or event) or told.usage
    if not told.whole:
        told.usage = None


def usage_of(document: dict[str, Any]) -> tuple[int, int, int] | None:
    """(input, cached, output), by either family's names."""
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None
    details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
    found = (
        usage.get("input_tokens", usage.get("prompt_tokens")),
        details.get("cached_tokens", 0),
        usage.get("output_tokens", usage.get("completion_tokens", 0)),
    )
    return found if all(isinstance(each, int) and each >= 0 for each in found) else None
