"""``/audio/transcriptions``, ``translations`` and ``speech``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from app.simulator.delivery import answer_in_events, answer_wholly
from app.simulator.errors import refuse_missing, refuse_value
from app.simulator.log import BilledUsage
from app.simulator.resources.answers import EventsAnswer, Members, WholeAnswer
from app.simulator.resources.multipart import form_of
from app.simulator.tokens import count_tokens, pieces_of
from app.simulator.usage_report import report

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from app.simulator.exchange import Exchange
    from app.simulator.generate import Generator
    from app.simulator.steering import Steering

BYTES_PER_S = 32_000
"""Sixteen-bit sound at 16 kHz: what is not, is counted as if it were."""
AUDIO_TOKENS_PER_S = 10
SPEECH_BYTES_PER_TOKEN = 400
SPEECH_EVENTS = 4
TEXT = b"text/plain; charset=utf-8"
SPEECH_TYPES = {
    "mp3": b"audio/mpeg",
    "opus": b"audio/opus",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}
FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")


class SpeechBody(msgspec.Struct, kw_only=True):
    """What is read of the body."""

    model: str | None = None
    input: str | None = None
    response_format: str | None = None
    stream_format: str | None = None


class Audio:
    """Each method decides at once and returns the delivery."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def transcribe(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /audio/transcriptions``."""
        return self._write_down(exchange, data, header, told_usage=True)

    def translate(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /audio/translations``, whose answer has no usage."""
        return self._write_down(exchange, data, header, told_usage=False)

    def speak(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /audio/speech``."""
        body = msgspec.json.decode(data, type=SpeechBody)
        for name, value in (("model", body.model), ("input", body.input)):
            if not value:
                refuse_missing(name)
        text = body.input or ""
        stream = body.stream_format == "sse"
        steering = self._generator.steer(exchange, body.model or "", text, header, stream=stream)
        content_type = SPEECH_TYPES.get(body.response_format or "mp3")
        if content_type is None:
            refuse_value("response_format", f"Invalid value: '{body.response_format}'.")
        tokens = 2 * count_tokens(text) if steering.tokens is None else steering.tokens
        used = exchange.used = BilledUsage(count_tokens(text), 0, tokens)
        sound = (b"ID3" + bytes(range(256)) * (tokens * SPEECH_BYTES_PER_TOKEN // 256 + 1))[: 400 * max(tokens, 1)]
        if steering.event_bytes:
            sound = bytes(steering.event_bytes)
        if not stream:
            return answer_wholly(exchange, WholeAnswer(sound, content_type))
        size = -(-len(sound) // SPEECH_EVENTS)
        events: list[Members] = [
            {"type": "speech.audio.delta", "audio": base64.b64encode(sound[start : start + size]).decode()}
            for start in range(0, len(sound), size)
        ]
        events.append({"type": "speech.audio.done", "usage": None})
        report(events[-1], _token_usage(used), steering.usage)
        answer = EventsAnswer(events, used)
        return answer_in_events(exchange, answer, answer)

    def _write_down(
        self, exchange: Exchange, data: bytes, header: bytes | None, *, told_usage: bool
    ) -> Awaitable[None]:
        form = form_of(exchange.content_type, data)
        form.close()
        fields = form.fields
        file = form.file("file")
        model, prompt = form.field("model"), fields.get("prompt", "")
        layout = fields.get("response_format") or "json"
        if layout not in FORMATS:
            refuse_value("response_format", f"Invalid value: '{layout}'.")
        stream = fields.get("stream") == "true" and not model.startswith("whisper")
        steering = self._generator.steer(exchange, model, prompt, header, stream=stream)
        seconds = -(-file.blob.size // BYTES_PER_S) or 1
        text = _text(f"This is what is said in {file.filename}, for {seconds} seconds.", steering)
        by_duration = model.startswith("whisper")
        used = exchange.used = (
            BilledUsage(seconds=seconds)
            if by_duration
            else BilledUsage(seconds * AUDIO_TOKENS_PER_S + count_tokens(prompt), 0, count_tokens(text))
        )
        usage: Members = {"type": "duration", "seconds": seconds}
        if not by_duration:
            details = {"audio_tokens": seconds * AUDIO_TOKENS_PER_S, "text_tokens": count_tokens(prompt)}
            usage = {"type": "tokens", **_token_usage(used), "input_token_details": details}
        if stream:
            events: list[Members] = [{"type": "transcript.text.delta", "delta": piece} for piece in pieces_of(text)]
            events.append({"type": "transcript.text.done", "text": text, "usage": usage})
            answer = EventsAnswer(events, used)
            return answer_in_events(exchange, answer, answer)
        if layout in ("text", "srt", "vtt"):
            return answer_wholly(exchange, WholeAnswer(_laid_out(text, seconds, layout).encode(), TEXT))
        told: Members = {"text": text}
        if layout == "verbose_json":
            segment = {"id": 0, "seek": 0, "start": 0.0, "end": float(seconds), "text": text, "tokens": []}
            segment |= {"temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0}
            told |= {"task": "transcribe", "language": fields.get("language") or "english"}
            told |= {"duration": float(seconds), "segments": [segment]}
        if told_usage:
            told["usage"] = usage
        return answer_wholly(exchange, WholeAnswer(msgspec.json.encode(told)))


def _text(text: str, steering: Steering) -> str:
    if steering.tokens is None:
        return text
    pieces = pieces_of(text)
    while len(pieces) < steering.tokens:
        pieces += pieces_of(f" {text}")
    return "".join(pieces[: steering.tokens])


def _laid_out(text: str, seconds: int, layout: str) -> str:
    if layout == "text":
        return f"{text}\n"
    ends = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if layout == "srt":
        return f"1\n00:00:00,000 --> {ends},000\n{text}\n\n"
    return f"WEBVTT\n\n00:00:00.000 --> {ends}.000\n{text}\n\n"


def _token_usage(used: BilledUsage) -> Members:
    return {
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
    }
