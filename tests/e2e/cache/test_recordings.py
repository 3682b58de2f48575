"""Real streams, through a miss and a hit: the same bytes, and those of them that must not be kept are not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.cache.sites import ALL_PLAYED, EVERY, Site, body_of, opened_site, word
from tests.e2e.doors import FORMS
from tests.e2e.test_replay import events_of
from tests.fakes.people import Key
from tests.fakes.upstream import chunked

ON = {"x-headgate-cache": "on"}

KEPT = (
    "openai_responses_raw_cot_stream_openrouter.0",
    "openai_responses_stream.0",
    "openai_responses_streaming_usage.0",
)
"""They have function tools at most."""

BYPASSED = {
    "openai_include_raw_annotations_streaming.0": "hosted tool",  # web_search
    "openai_responses_code_execution_return_image_stream.0": "hosted tool",  # code_interpreter
    "openai_responses_model_mcp_server_tool_stream.0": "hosted tool",  # mcp
    "openai_responses_model_web_search_tool_stream.0": "hosted tool",  # web_search
    "background_mode_streaming_starting_after_vcr.0": "background",
}
"""What they ask for, which no policy lets the cache answer."""

REFUSED = {
    "openai_conversation_id_streaming_provider_details.1": 404,  # a stored object of nobody known
}
"""They do not get as far as the cache."""

NO_POST = ("background_mode_streaming_starting_after_vcr.1",)
"""A GET of what is stored, from its second event on."""

UNFIT = {
    "background_mode_streaming_starting_after_vcr.1": "it has no response.created",
    "openai_include_raw_annotations_streaming.0": "it has an item of a hosted tool",
    "openai_responses_code_execution_return_image_stream.0": "it has an item of a hosted tool",
    "openai_responses_model_mcp_server_tool_stream.0": "it has an item of a hosted tool",
    "openai_responses_model_web_search_tool_stream.0": "it has an item of a hosted tool",
}
"""Streams that are not kept either where the request would allow it."""

CUTS = ("events", "one_write", "bytes", "pieces", "lines", "apart", "pairs")


def cut(body: bytes, how: str) -> list[bytes]:
    """The body in the writes of an upstream."""
    if how == "one_write":
        return [body]
    if how == "bytes":
        return [body[at : at + 1] for at in range(len(body))]
    if how == "pieces":
        return [body[at : at + 37] for at in range(0, len(body), 37)]
    if how == "lines":
        return body.splitlines(keepends=True)
    events = events_of(body)
    if how == "apart":
        return [part for each in events for part in (each[:-1], each[-1:])]
    if how == "pairs":
        return [b"".join(events[at : at + 2]) for at in range(0, len(events), 2)]
    return events


@dataclass
class Recording:
    name: str
    method: str
    request: Any
    body: bytes

    def cacheable(self, **more: Any) -> dict[str, Any]:
        """Its own request, as far as the cache may be asked for it."""
        return {**self.request, "temperature": 0, "store": False, **more}


@pytest.fixture(scope="module")
def recorded(recordings: Path) -> dict[str, Recording]:
    found = {}
    for path in sorted(recordings.glob("*.meta.json")):
        name = path.name.removesuffix(".meta.json")
        meta = json.loads(path.read_text())
        found[name] = Recording(name, meta["method"], meta["request"], (recordings / f"{name}.sse").read_bytes())
    return found


@pytest.fixture(scope="module", params=FORMS)
def theatre(request, tmp_path_factory, recorded) -> Iterator[Site]:
    """Whatever is asked for, the recording that the request's metadata names is played."""

    def play(seen):
        name, how = json.loads(seen.body)["metadata"]["play"].split("/")
        return chunked(cut(recorded[name].body, how), pause_s=0.0)

    with opened_site(tmp_path_factory.mktemp("theatre"), request.param, config=ALL_PLAYED) as site:
        site.serves(EVERY, play)
        yield site


@pytest.fixture
def key(theatre) -> Key:
    return theatre.key()


def metadata(name: str, how: str = "events") -> dict[str, Any]:
    return {"metadata": {"play": f"{name}/{how}", "word": word()}}


def test_every_recording_is_in_the_tables(recorded):
    assert sorted(recorded) == sorted((*KEPT, *BYPASSED, *REFUSED, *NO_POST))
    # Of a background response the first stream may have no end of its own.
    assert set(UNFIT) == {*BYPASSED, *NO_POST} - {"background_mode_streaming_starting_after_vcr.0"}


@pytest.mark.parametrize("name", KEPT)
def test_a_recording_is_repeated_byte_for_byte_however_it_came(theatre, key, recorded, name):
    recording = recorded[name]
    wanted = hashlib.sha256(recording.body).hexdigest()
    before = len(theatre.played.requests)

    def check(how: str) -> None:
        body = recording.cacheable(**metadata(name, how))
        first, second = theatre.ask(key, body=body), theatre.ask(key, body=body)
        assert (first.cache, second.cache) == ("miss", "hit"), how
        for told in (first, second):
            assert told.is_whole
            assert hashlib.sha256(told.body).hexdigest() == wanted
            told.check_boundaries()
        alone = theatre.ask(key, body={**body, "stream": False})
        assert (alone.cache, alone.is_stream) == ("hit", False)
        assert alone.json == final_of(recording.body)

    with ThreadPoolExecutor(len(CUTS)) as pool:
        list(pool.map(check, CUTS))
    assert len(theatre.played.requests) == before + len(CUTS)


def final_of(body: bytes) -> dict[str, Any]:
    (line,) = [line for line in body.splitlines() if line.startswith(b'data: {"type":"response.completed"')]
    return json.loads(line.removeprefix(b"data: "))["response"]


@pytest.mark.parametrize("name", KEPT)
def test_a_recordings_own_request_is_repeated_only_where_that_is_asked_for(theatre, key, recorded, name):
    """It says neither a temperature of zero nor store: false."""
    body = {**recorded[name].request, **metadata(name)}
    told = [theatre.ask(key, body=body) for _ in range(2)]
    assert [one.cache for one in told] == ["bypass", "bypass"]
    assert told[0].detail == 'fwd=bypass; detail="temperature"'
    told = [theatre.ask(key, body=body, headers=ON) for _ in range(2)]
    assert [one.cache for one in told] == ["miss", "hit"]
    assert [one.body for one in told] == [recorded[name].body] * 2


@pytest.mark.parametrize("name", BYPASSED)
def test_a_recording_that_no_cache_may_answer_is_passed_by(theatre, key, recorded, name):
    before = len(theatre.played.requests)
    for body in (recorded[name].cacheable(**metadata(name)), {**recorded[name].request, **metadata(name)}):
        told = [theatre.ask(key, body=body, headers=ON) for _ in range(2)]
        assert [one.cache for one in told] == ["bypass", "bypass"]
        assert {one.detail for one in told} == {f'fwd=bypass; detail="{BYPASSED[name]}"'}
        assert [one.body for one in told] == [recorded[name].body] * 2
    assert len(theatre.played.requests) == before + 4


@pytest.mark.parametrize("name", REFUSED)
def test_a_recording_of_what_nobody_may_ask_for_is_refused_each_time(theatre, key, recorded, name):
    before = len(theatre.played.requests)
    for body in (recorded[name].cacheable(**metadata(name)), {**recorded[name].request, **metadata(name)}):
        for _ in range(2):
            told = theatre.ask(key, body=body, headers=ON)
            assert (told.status, told.cache) == (REFUSED[name], "bypass")
    assert len(theatre.played.requests) == before


@pytest.mark.parametrize("name", NO_POST)
def test_a_get_of_a_stored_response_is_not_answered_from_the_cache(theatre, key, recorded, name):
    recording = recorded[name]
    assert recording.method == "GET"
    response_id = final_of(recording.body)["id"]
    for _ in range(2):
        told = httpx.get(f"{theatre.gateway.base_url}/responses/{response_id}?stream=true", headers=key.headers)
        assert told.status_code == 404
        assert told.headers.get("x-headgate-cache", "bypass") == "bypass"


@pytest.mark.parametrize("name", UNFIT)
def test_an_answer_that_tells_of_more_than_the_request_is_not_kept(theatre, key, recorded, name):
    """An upstream may do what it was not asked for: what it says then is passed on, and called again."""
    body = body_of("anything", stream=True, **metadata(name))
    before = len(theatre.played.requests)
    told = [theatre.ask(key, body=body) for _ in range(2)]
    assert [one.cache for one in told] == ["miss", "miss"]
    assert [one.body for one in told] == [recorded[name].body] * 2
    assert len(theatre.played.requests) == before + 2
