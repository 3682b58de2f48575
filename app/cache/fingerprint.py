"""What may be kept of a request's answers, and under which digest. Pure.

Two requests share a digest if and only if nothing in which they differ could change an answer: the order of
members and the spacing between them cannot, nor can ``stream`` (the same answer is told in another form), nor
what a chat answer does not echo. A number that is spelled otherwise makes another digest, though it may be
the same number: that costs a call, and never gives a wrong answer.

What must be left alone is from responses-api.md, 4: whatever has state at the provider, reads what is outside
of the request, or acts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from app.cache.entry import STREAM_FORM
from app.core.codec import JSONObject
from app.core.errors import Headers
from app.core.exchange import Dialect, Endpoint
from app.core.peek import Peek

Nature = Literal["deterministic", "repeatable", "never"]
"""``deterministic``: the answer is the same each time. ``repeatable``: an earlier answer would do, where the
policy says so. ``never``: it would not.
"""

DIGEST_BYTES = 32
_PERSON = b"headgate-cache-1"
_OPTIONS_DIGEST_BYTES = 8

# Members that only say how the answer is told.
_OF_FORM = ("stream", "stream_options")
# Labels that a chat answer (or an embedding) does not echo; a Responses answer does.
_LABELS: dict[Dialect, tuple[str, ...]] = {
    "responses": (),
    "chat": ("metadata", "user", "safety_identifier", "prompt_cache_key"),
    "embeddings": ("user",),
    "other": (),
}
# With any of these the answer depends on state, or does more than answer.
_STATEFUL = ("previous_response_id", "conversation", "prompt", "context_management", "moderation", "multi_agent")
_TOOLS_THAT_ACT = ("computer",)

_HINT = re.compile(rb'"file_id"|_url"|"item_reference"|"id"')
_DATA_URL = "data:"
_BARE = frozenset(("id", "type", "status"))

_sorted_encoder = msgspec.json.Encoder(order="sorted")
# Numbers as they are written: a double would make one of two that differ in the twentieth digit.
_exact_decoder = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode()))
_parts_encoder = msgspec.msgpack.Encoder()


def nature_of(dialect: Dialect, ask: Peek, body: JSONObject, *, only_deterministic: bool = False) -> tuple[Nature, str]:
    """Whether answers to this request may be kept, and what stands against it (empty: nothing).

    ``only_deterministic``: nothing else will be kept, so that what is cheap to tell is told first.
    """
    if only_deterministic and dialect != "embeddings":
        if keeps_state(dialect, ask, body):
            return "repeatable", "store"
        if not is_zero(body):
            return "repeatable", "temperature"
    reason = _never(dialect, ask, body)
    if reason:
        return "never", reason
    if dialect == "embeddings":
        return "deterministic", ""
    if keeps_state(dialect, ask, body):
        return "repeatable", "store"
    return ("deterministic", "") if is_zero(body) else ("repeatable", "temperature")


def keeps_state(dialect: Dialect, ask: Peek, body: JSONObject) -> bool:
    """Whether the provider stores the answer: a Responses answer unless told not to, a chat answer if told to."""
    if dialect == "responses":
        return ask.stores
    return dialect == "chat" and body.value.get("store") is True


def is_zero(body: JSONObject) -> bool:
    """Whether the temperature is there, and zero."""
    temperature = body.value.get("temperature")
    return type(temperature) in (int, float) and temperature == 0


def _never(dialect: Dialect, ask: Peek, body: JSONObject) -> str:
    if dialect == "embeddings":
        return ""
    return _depends(ask, body) or _points(dialect, body)


def _depends(ask: Peek, body: JSONObject) -> str:
    """What in the request has state, acts, or is not a thing to be asked twice."""
    for name in _STATEFUL:
        if name in body.members and body.has(name):
            return name
    if body.value.get("background") is True:
        return "background"
    if body.value.get("generate") is False:
        return "generate"
    if not ask.stream and body.has("stream_options"):
        # Providers refuse that, and what they refuse is not answered.
        return "stream_options"
    extent = ask.extent
    if extent.tools or _acts(body):
        return "hosted tool"
    return "audio" if extent.audio_output else extent.open_ended or ""


def _points(dialect: Dialect, body: JSONObject) -> str:
    """What in the input is not in it."""
    # In the form in which msgspec writes it no letter is spelled as an escape.
    if _HINT.search(body.body if body.canonical else _sorted_encoder.encode(body.value)) is None:
        return ""
    read = ("input", "instructions") if dialect == "responses" else ("messages",)
    reasons = (_refers_outside(body.value.get(name)) for name in read)
    return next((reason for reason in reasons if reason), "")


def _acts(body: JSONObject) -> bool:
    tools = body.value.get("tools")
    return isinstance(tools, list) and any(
        isinstance(tool, dict) and str(tool.get("type", "")).startswith(_TOOLS_THAT_ACT) for tool in tools
    )


def _refers_outside(value: Any) -> str:
    """What in the input stands for something that is not in it; empty where nothing does."""
    items = value if isinstance(value, list) else []
    if any(isinstance(item, dict) and item.get("id") is not None and not set(item) - _BARE for item in items):
        return "item_reference"
    todo: list[Any] = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo += one
        elif isinstance(one, dict):
            reason = _points_outside(one)
            if reason:
                return reason
            todo += [member for member in one.values() if isinstance(member, dict | list)]
    return ""


def _points_outside(part: dict[str, Any]) -> str:
    if part.get("type") == "item_reference":
        return "item_reference"
    if part.get("file_id") is not None:
        return "file_id"
    for name, member in part.items():
        # image_url, file_url; and those of servers that are not OpenAI: audio_url, video_url.
        if name.endswith("_url"):
            url = member.get("url") if isinstance(member, dict) else member
            if isinstance(url, str) and url[: len(_DATA_URL)].lower() != _DATA_URL:
                return name
    return ""


def digest_of(
    secret: bytes,
    *,
    scope: str,
    endpoint: Endpoint,
    query: bytes,
    headers: Headers,
    forwarded: Iterable[bytes],
    routes: Iterable[tuple[str, str, str]],
    body: JSONObject,
) -> bytes:
    """The digest of a request within ``scope``. ``forwarded`` names the client's headers that reach an upstream
    beside the usual ones; ``routes`` are those that may serve it: (upstream, base URL, model).

    Keyed, so that nobody who reads the store can find out whether a guessed prompt was asked.
    """
    seen = told_headers(headers, forwarded)
    parts = (scope, endpoint.method, endpoint.path, query, seen, list(routes), canonical(endpoint.dialect, body))
    return hashlib.blake2b(_parts_encoder.encode(parts), digest_size=DIGEST_BYTES, key=secret, person=_PERSON).digest()


def told_headers(headers: Headers, forwarded: Iterable[bytes]) -> Headers:
    """Those by which an upstream may answer otherwise; of one name, in their order."""
    return sorted((one for one in headers if one[0] == b"openai-beta" or one[0] in forwarded), key=lambda one: one[0])


def canonical(dialect: Dialect, body: JSONObject) -> bytes:
    """The body in one form: without what cannot change the answer, members sorted at every depth."""
    value = dict(body.value if body.canonical else _exact_decoder.decode(body.body))
    for name in (*_OF_FORM, *_LABELS[dialect]):
        value.pop(name, None)
    if "temperature" in value and is_zero(body):
        # The one number that decides here; SDKs write it as 0 and as 0.0.
        value["temperature"] = 0
    return _sorted_encoder.encode(value)


def stream_form(body: JSONObject) -> str:
    """The form of a stream as this request wants it told."""
    options = body.value.get("stream_options")
    if options is None:
        return STREAM_FORM
    digest = hashlib.blake2b(_sorted_encoder.encode(options), digest_size=_OPTIONS_DIGEST_BYTES).hexdigest()
    return f"{STREAM_FORM}.{digest}"
