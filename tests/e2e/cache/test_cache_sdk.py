"""Example 2.3 of the documents that this project began from, the same call twice, through the official SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response

from tests.e2e.cache.sites import Site
from tests.fakes.people import Key

CALL: dict[str, Any] = {"model": "gpt-4o", "input": "What is 2+2?", "temperature": 0, "store": False}
TEXT = "4"


@contextmanager
def client_of(site: Site, key: Key) -> Iterator[OpenAI]:
    with OpenAI(base_url=site.gateway.base_url, api_key=key.text, max_retries=0) as client:
        yield client


@asynccontextmanager
async def async_client_of(site: Site, key: Key) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=site.gateway.base_url, api_key=key.text, max_retries=0) as client:
        yield client


Answer = tuple[str, Response]
"""What ``x-headgate-cache`` says, and the response."""


def create(client: OpenAI) -> Answer:
    raw = client.responses.with_raw_response.create(**CALL)
    return raw.headers["x-headgate-cache"], raw.parse()


def create_stream(client: OpenAI) -> Answer:
    with client.responses.create(**CALL, stream=True) as stream:
        events = list(stream)
        told = stream.response.headers["x-headgate-cache"]
    check_events(events)
    return told, events[-1].response


def stream_helper(client: OpenAI) -> Answer:
    with client.responses.stream(**CALL) as stream:
        events = list(stream)
        final = stream.get_final_response()
        told = stream._response.headers["x-headgate-cache"]
    check_events(events)
    return told, final


async def create_async(client: AsyncOpenAI) -> Answer:
    raw = await client.responses.with_raw_response.create(**CALL)
    return raw.headers["x-headgate-cache"], raw.parse()


async def create_stream_async(client: AsyncOpenAI) -> Answer:
    async with await client.responses.create(**CALL, stream=True) as stream:
        events = [event async for event in stream]
        told = stream.response.headers["x-headgate-cache"]
    check_events(events)
    return told, events[-1].response


async def stream_helper_async(client: AsyncOpenAI) -> Answer:
    async with client.responses.stream(**CALL) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
        told = stream._response.headers["x-headgate-cache"]
    check_events(events)
    return told, final


def check_events(events: list[Any]) -> None:
    """The deltas come in order and are the text, between a created and a completed of one response."""
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert events[0].response.id == events[-1].response.id
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == events[-1].response.output_text


def check_pair(site: Site, key: Key, first: Answer, second: Answer) -> None:
    assert (first[0], second[0]) == ("miss", "hit")
    one, other = (
        answer.model_dump(mode="json", exclude={"output": {"__all__": {"content"}}}) for _, answer in (first, second)
    )
    assert one == other
    assert TEXT in first[1].output_text
    assert second[1].output_text == first[1].output_text
    assert second[1].usage == first[1].usage
    paid, spared = site.records(key, 2)
    assert spared["saved_nanousd"] > 0
    assert [row["cache"] for row in (paid, spared)] == ["miss", "hit"]
    assert [row["response_id"] for row in (paid, spared)] == [first[1].id] * 2


SYNC = [create, create_stream, stream_helper]
ASYNC = [
    (create_async, create_async),
    (create_async, create_stream_async),
    (create_async, stream_helper_async),
    (create_stream_async, create_async),
    (stream_helper_async, stream_helper_async),
]


@pytest.mark.parametrize("second", SYNC)
@pytest.mark.parametrize("first", SYNC)
def test_the_second_call_is_a_hit_in_whatever_form(embedded, first: Callable[[OpenAI], Answer], second):
    key = embedded.key()
    with embedded.calls() as calls, client_of(embedded, key) as client:
        told = [first(client), second(client)]
    assert len(calls) == 1
    check_pair(embedded, key, *told)


@pytest.mark.parametrize(("first", "second"), ASYNC)
def test_the_second_call_of_an_async_client_is_a_hit(shared, first: Callable[[AsyncOpenAI], Awaitable[Answer]], second):
    key = shared.key()

    async def work() -> list[Answer]:
        async with async_client_of(shared, key) as client:
            return [await first(client), await second(client)]

    with shared.calls() as calls:
        told = asyncio.run(work())
    assert len(calls) == 1
    check_pair(shared, key, *told)


def test_the_examples_own_check_holds(site, key):
    with client_of(site, key) as client:
        first, second = (client.responses.create(**CALL) for _ in range(2))
    assert first.output_text == second.output_text
    assert first.id == second.id
