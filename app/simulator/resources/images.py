"""``POST /images/generations``, ``edits`` and ``variations``: one small picture, in any number and size of bytes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from app.simulator.delivery import answer_in_events, answer_wholly
from app.simulator.errors import refuse_missing
from app.simulator.log import BilledUsage
from app.simulator.resources.answers import EventsAnswer, Members, WholeAnswer
from app.simulator.resources.multipart import form_of
from app.simulator.steering import without_directives
from app.simulator.tokens import count_tokens
from app.simulator.usage_report import report

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from app.simulator.exchange import Exchange
    from app.simulator.generate import Generator

IMAGES_MAX = 10
PARTIAL_IMAGES_MAX = 3
TOKENS = {"low": 272, "medium": 1056, "high": 4160}
INPUT_IMAGE_TOKENS = 323
_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class ImageBody(msgspec.Struct, kw_only=True):
    """What is read of the body; a form has the same members."""

    model: str | None = None
    prompt: str | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=IMAGES_MAX)] | None = None
    size: str | None = None
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    response_format: str | None = None
    stream: bool | None = None
    partial_images: Annotated[int, msgspec.Meta(ge=0, le=PARTIAL_IMAGES_MAX)] | None = None


class Images:
    """Each method decides at once and returns the delivery."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def generate(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /images/generations``."""
        return self._draw(exchange, msgspec.json.decode(data, type=ImageBody), header, given=0)

    def edit(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /images/edits``: a form with pictures, or JSON with references to some."""
        if not exchange.content_type.startswith(b"multipart/"):
            given = msgspec.json.decode(data, type=dict[str, Any]).get("images") or []
            return self._draw(exchange, msgspec.json.decode(data, type=ImageBody), header, given=len(given))
        form = form_of(exchange.content_type, data)
        given = sum(len(files) for name, files in form.files.items() if name.startswith("image"))
        form.close()
        if not given:
            refuse_missing("image")
        body = msgspec.convert(form.fields, ImageBody, strict=False)
        return self._draw(exchange, body, header, given=given)

    def vary(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /images/variations``: an edit without words."""
        form = form_of(exchange.content_type, data)
        form.close()
        if "image" not in form.files:
            refuse_missing("image")
        body = msgspec.convert({"prompt": " ", **form.fields}, ImageBody, strict=False)
        return self._draw(exchange, body, header, given=1)

    def _draw(self, exchange: Exchange, body: ImageBody, header: bytes | None, *, given: int) -> Awaitable[None]:
        if not body.prompt:
            refuse_missing("prompt")
        model = body.model or "dall-e-2"
        steering = self._generator.steer(exchange, model, body.prompt, header, stream=bool(body.stream))
        count = body.n or 1
        text = count_tokens(body.prompt)
        each = TOKENS.get(body.quality or "medium", TOKENS["medium"]) if steering.tokens is None else steering.tokens
        used = exchange.used = BilledUsage(text + given * INPUT_IMAGE_TOKENS, steering.cached or 0, count * each)
        image = base64.b64encode(_PNG + bytes(max(steering.event_bytes - len(_PNG), 0))).decode()
        usage = {
            "input_tokens": used.input_tokens,
            "input_tokens_details": {"image_tokens": given * INPUT_IMAGE_TOKENS, "text_tokens": text},
            "output_tokens": used.output_tokens,
            "output_tokens_details": {"image_tokens": used.output_tokens, "text_tokens": 0},
            "total_tokens": used.input_tokens + used.output_tokens,
        }
        created_s = exchange.served.started_ms // 1000
        look = {
            "background": body.background or "opaque",
            "output_format": body.output_format or "png",
            "quality": body.quality or "medium",
            "size": body.size or "1024x1024",
        }
        if body.stream:
            kind = "image_edit" if given else "image_generation"
            events = _events(kind, {"b64_json": image, "created_at": created_s, **look}, body.partial_images or 0)
            report(events[-1], usage, steering.usage)
            answer = EventsAnswer(events, used)
            return answer_in_events(exchange, answer, answer)
        if model.startswith("dall-e"):
            as_data = body.response_format == "b64_json"
            one: Members = {"b64_json": image} if as_data else {"url": "http://simulator/images/1.png"}
            one["revised_prompt"] = without_directives(body.prompt)
            # Billed by the picture: there is no usage in the answer.
            whole = WholeAnswer.of_object({"created": created_s, "data": [one] * count}, None, steering)
        else:
            data = [{"b64_json": image}] * count
            whole = WholeAnswer.of_object({"created": created_s, "data": data, **look, "usage": None}, usage, steering)
        return answer_wholly(exchange, whole)


def _events(kind: str, image: Members, partial_images: int) -> list[Members]:
    partial = [
        {"type": f"{kind}.partial_image", "partial_image_index": index, **image} for index in range(partial_images)
    ]
    return [*partial, {"type": f"{kind}.completed", **image, "usage": None}]
