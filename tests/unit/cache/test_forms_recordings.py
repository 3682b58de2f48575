"""Real streams: which of them may be kept, and that what is made of their answers is like them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.cache.forms import final_response, is_complete, pieces
from app.cache.synthesis import stream_of
from app.core.sse import EventReader

LINE_ENDS = [b"\n", b"\r\n", b"\r"]

KEPT = {
    # Its request may not be cached: the response runs in the background. The answer itself is whole.
    "background_mode_streaming_starting_after_vcr.0",
    # Its request may not be cached: it is a turn of a conversation.
    "openai_conversation_id_streaming_provider_details.1",
    # Another server: events without names, a comment first, ``[DONE]`` last, reasoning text.
    "openai_responses_raw_cot_stream_openrouter.0",
    "openai_responses_stream.0",
    "openai_responses_streaming_usage.0",
}
REFUSED = {
    # The rest of a stream, taken up again: it begins with ``response.queued``.
    "background_mode_streaming_starting_after_vcr.1",
    # Hosted tools: what they saw passes.
    "openai_include_raw_annotations_streaming.0",
    "openai_responses_code_execution_return_image_stream.0",
    "openai_responses_model_mcp_server_tool_stream.0",
    "openai_responses_model_web_search_tool_stream.0",
}


class Recording:
    def __init__(self, folder, name) -> None:
        self.body = (folder / f"{name}.sse").read_bytes()
        meta = json.loads((folder / f"{name}.meta.json").read_text())
        self.status = meta["status"]["code"]
        self.headers = [(each.encode(), value.encode()) for each, value in meta["headers"].items()]

    def is_kept(self, body=None):
        return is_complete("responses", "stream", self.status, self.headers, self.body if body is None else body)


def events_of(body) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in EventReader().feed(body) if event.data != b"[DONE]"]


def test_every_recording_is_judged(recordings):
    assert {path.stem for path in recordings.glob("*.sse")} == KEPT | REFUSED


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("name", sorted(KEPT | REFUSED))
def test_which_recordings_may_be_kept(recordings, name, line_end):
    recording = Recording(recordings, name)
    body = recording.body.replace(b"\n", line_end)
    assert recording.is_kept(body) is (name in KEPT)
    cut = pieces(body)
    assert b"".join(cut) == body
    assert len([piece for piece in cut if b"data: " in piece]) == len(EventReader().feed(body))
    final = final_response(body)
    assert json.loads(final) == events_of(body)[-1]["response"]
    assert final in body


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("name", sorted(KEPT))
def test_a_recording_that_is_cut_is_not_kept(recordings, name, line_end):
    recording = Recording(recordings, name)
    body = recording.body.replace(b"\n", line_end)
    whole = len(body)
    if body.endswith(b"data: [DONE]" + 2 * line_end):
        # That is no part of an answer: without it the stream is whole as well.
        whole -= len(b"data: [DONE]" + 2 * line_end)
    assert [at for at in range(len(body)) if recording.is_kept(body[:at])] == ([whole] if whole < len(body) else [])


# What is made of a real answer, against what OpenAI made of it.

_UNKNOWN_AFTERWARDS = {"sequence_number", "obfuscation", "service_tier", "encrypted_content"}
"""What an answer does not say of its stream: old streams have no numbers, what is encrypted is so anew each time."""
_TOLD = {"message", "reasoning", "function_call"}


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: comparable(each) for name, each in value.items() if name not in _UNKNOWN_AFTERWARDS}
    return [comparable(each) for each in value] if isinstance(value, list) else value


def told(events: list[dict[str, Any]], places: list[int]) -> list[dict[str, Any]]:
    """The events of the items at ``places``, each run of deltas as one, with citations behind the text."""
    found: list[dict[str, Any]] = []
    citations: list[dict[str, Any]] = []
    for event in events:
        if "response" in event:
            found.append({"type": event["type"], "members": sorted(event)})
            continue
        if event["output_index"] not in places:
            continue
        each = {**event, "output_index": places.index(event["output_index"])}
        if each["type"].endswith(".annotation.added"):
            citations.append(each)
        elif each["type"].endswith(".delta") and found[-1]["type"] == each["type"]:
            found[-1]["delta"] += each["delta"]
        else:
            if each["type"].endswith(".done"):
                found += citations
                citations = []
            found.append(each)
    return comparable(found)


@pytest.mark.parametrize("name", sorted((KEPT | REFUSED) - {"openai_responses_raw_cot_stream_openrouter.0"}))
def test_a_made_stream_is_like_the_recorded_one(recordings, name):
    recorded = events_of(Recording(recordings, name).body)
    answer = recorded[-1]["response"]
    places = [place for place, item in enumerate(answer["output"]) if item["type"] in _TOLD]
    if name.startswith("background"):
        recorded = [event for event in recorded if event["type"] != "response.queued"]
        answer["background"] = False
        if recorded[0]["type"] != "response.created":
            recorded = [{**recorded[0], "type": "response.created"}, *recorded]
    answer.pop("conversation", None)
    answer["output"] = [answer["output"][place] for place in places]
    made = events_of(stream_of(json.dumps(answer).encode()))
    assert [event["sequence_number"] for event in made] == list(range(len(made)))
    if "sequence_number" not in recorded[0]:
        recorded = [{**event, "sequence_number": 0} for event in recorded]
    assert told(made, list(range(len(places)))) == told(recorded, places)
    for kind in range(2):
        began = {**comparable(recorded[kind]["response"]), "background": False, "status": "in_progress"}
        began.pop("conversation", None)
        mine = {"background": False, **comparable(made[kind]["response"])}
        assert mine == began
    assert made[-1]["response"] == answer


def test_how_another_server_streams_is_not_known(recordings):
    final = final_response(Recording(recordings, "openai_responses_raw_cot_stream_openrouter.0").body)
    assert stream_of(final) is None
