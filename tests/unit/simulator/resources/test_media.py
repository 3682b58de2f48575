from __future__ import annotations

import base64

import openai
import pytest

# What the provider will switch off is still called, and so still passes a gateway.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def last_of(simulator, endpoint):
    return next(entry for entry in reversed(list(simulator.log)) if entry.endpoint == endpoint)


async def test_images_cost_tokens(client, simulator):
    made = await client.images.generate(model="gpt-image-1", prompt="A red boat", n=2, quality="low")
    entry = last_of(simulator, "images.generations")
    assert (entry.billed, entry.outcome, entry.model) == (True, "completed", "gpt-image-1")
    assert made.usage.output_tokens == entry.usage.output_tokens == 544
    assert made.usage.input_tokens == entry.usage.input_tokens == 3
    assert len(made.data) == 2 and base64.b64decode(made.data[0].b64_json).startswith(b"\x89PNG")


async def test_images_come_in_a_stream_with_large_lines(client, simulator):
    stream = await client.images.generate(
        model="gpt-image-1", prompt="A boat [[sim: event_bytes=300000]]", stream=True, partial_images=2
    )
    events = [event async for event in stream]
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert all(len(event.b64_json) == 400_000 for event in events)
    entry = last_of(simulator, "images.generations")
    assert events[-1].usage.output_tokens == entry.usage.output_tokens == 1056
    assert (entry.stream, entry.written_events, entry.outcome) == (True, 3, "completed")


async def test_images_are_edited(client, simulator):
    made = await client.images.edit(
        model="gpt-image-1", image=[("a.png", b"x" * 10), ("b.png", b"y")], prompt="Make it blue"
    )
    entry = last_of(simulator, "images.edits")
    assert made.usage.input_tokens_details.image_tokens == 646
    assert entry.usage.input_tokens == made.usage.input_tokens == 646 + made.usage.input_tokens_details.text_tokens
    assert (await client.images.create_variation(image=("a.png", b"x"), model="dall-e-2")).data[0].url
    assert last_of(simulator, "images.variations").billed
    with pytest.raises(openai.BadRequestError):
        await client.images.edit(image=[], prompt="x")


async def test_older_images_have_no_usage(client):
    made = await client.images.generate(model="dall-e-3", prompt="A boat", response_format="b64_json")
    assert made.usage is None and made.data[0].b64_json and made.data[0].revised_prompt == "A boat"


@pytest.mark.parametrize("body", [{}, {"prompt": "x", "n": 11}, {"prompt": 5}])
async def test_pictures_that_make_no_sense_are_refused(caller, body):
    assert (await caller.post("/v1/images/generations", body)).status == 400
    assert (await caller.served()).outcome == "refused"


async def test_transcriptions_cost_tokens_or_seconds(client, simulator):
    sound = ("talk.wav", b"x" * 64_001)
    by_tokens = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=sound, prompt="Ships")
    entry = last_of(simulator, "audio.transcriptions")
    assert by_tokens.usage.type == "tokens" and "talk.wav" in by_tokens.text
    assert by_tokens.usage.input_tokens == entry.usage.input_tokens == 31
    assert by_tokens.usage.output_tokens == entry.usage.output_tokens > 0
    by_time = await client.audio.transcriptions.create(model="whisper-1", file=sound)
    assert (by_time.usage.type, by_time.usage.seconds) == ("duration", 3)
    entry = last_of(simulator, "audio.transcriptions")
    assert (entry.usage.seconds, entry.usage.output_tokens, entry.billed) == (3, 0, True)
    verbose = await client.audio.transcriptions.create(model="whisper-1", file=sound, response_format="verbose_json")
    assert verbose.duration == 3.0 and verbose.segments[0].text == verbose.text
    plain = await client.audio.transcriptions.create(model="whisper-1", file=sound, response_format="srt")
    assert plain.startswith("1\n00:00:00,000 --> 00:00:03,000\n")
    translated = await client.audio.translations.create(model="whisper-1", file=sound)
    assert translated.text and last_of(simulator, "audio.translations").usage.seconds == 3


async def test_a_transcription_is_streamed(client, simulator):
    stream = await client.audio.transcriptions.create(
        model="gpt-4o-transcribe", file=("a.wav", b"x"), stream=True, prompt="[[sim: tokens=12]]"
    )
    events = [event async for event in stream]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    entry = last_of(simulator, "audio.transcriptions")
    assert events[-1].usage.output_tokens == entry.usage.output_tokens == 12


async def test_speech_is_binary(client, simulator):
    spoken = await client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hello there, you")
    entry = last_of(simulator, "audio.speech")
    assert spoken.response.headers["content-type"] == "audio/mpeg"
    assert len(spoken.content) == entry.usage.output_tokens * 400 > 0
    long = await client.audio.speech.create(
        model="m", voice="alloy", input="Hi [[sim: event_bytes=3000000]]", response_format="wav"
    )
    assert len(long.content) == 3_000_000
    events = (
        await client.audio.speech.create(model="m", voice="alloy", input="Hi", stream_format="sse")
    ).content.decode()
    assert events.count("event: speech.audio.delta\n") >= 4 and '"usage":{"input_tokens":1' in events
    with pytest.raises(openai.BadRequestError):
        await client.audio.speech.create(model="m", voice="alloy", input="")


async def test_steering_and_cuts_hold_for_media(caller, client, simulator):
    with pytest.raises(openai.InternalServerError):
        await client.images.generate(model="m", prompt="[[sim: error=503]]")
    entry = last_of(simulator, "images.generations")
    assert (entry.billed, entry.outcome, entry.status) == (False, "refused", 503)
    reply = await caller.post("/v1/audio/speech", {"model": "m", "input": "Hello [[sim: cut_after=1]]", "voice": "x"})
    assert not reply.whole
    assert (await caller.served()).outcome == "cut"


async def test_moderations_are_free(client, simulator):
    last = simulator.log.last_number
    found = await client.moderations.create(input=["a nice day", "I will attack you"])
    assert [result.flagged for result in found.results] == [False, True]
    assert found.results[1].categories.violence
    assert simulator.log.last_number == last
    with pytest.raises(openai.BadRequestError):
        await client.moderations.create(input="")


async def test_text_goes_on_from_text(client, simulator):
    made = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="2+2", temperature=0)
    entry = last_of(simulator, "completions")
    assert (made.object, made.choices[0].text, made.choices[0].finish_reason) == (
        "text_completion",
        "2 + 2 equals 4.",
        "stop",
    )
    assert made.usage.completion_tokens == entry.usage.output_tokens == 6
    assert entry.response_id == made.id
    long = await client.completions.create(model="m", prompt=["A story", "An essay"], n=2)
    assert [choice.index for choice in long.choices] == [0, 1, 2, 3]
    assert long.choices[0].finish_reason == "length" and long.usage.completion_tokens == 64
    stream = await client.completions.create(
        model="m", prompt="2+2", stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "2 + 2 equals 4."
    assert chunks[-1].usage.completion_tokens == 6 and chunks[-1].choices == []
    with pytest.raises(openai.BadRequestError):
        await client.completions.create(model="m", prompt=[[1, 2]])


async def test_a_video_is_ready_after_a_while(client, simulator):
    made = await client.videos.create(model="sora-2", prompt="A boat [[sim: queue_ms=60000]]", seconds="8")
    assert (made.status, made.seconds, made.prompt) == ("queued", "8", "A boat")
    entry = last_of(simulator, "videos")
    assert (entry.usage.seconds, entry.billed, entry.response_id) == (8, True, made.id)
    with pytest.raises(openai.NotFoundError):
        await client.videos.download_content(made.id)
    ready = await client.videos.create_and_poll(prompt="A ship", input_reference=("a.png", b"x"), poll_interval_ms=20)
    assert (ready.status, ready.progress) == ("completed", 100)
    content = await client.videos.download_content(ready.id)
    assert content.response.headers["content-type"] == "video/mp4" and len(content.content) == 100_000
    assert {made.id, ready.id} <= {video.id async for video in client.videos.list()}
    assert (await client.videos.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.videos.retrieve(made.id)
    with pytest.raises(openai.BadRequestError):
        await client.videos.create(prompt="x", seconds="0")
