"""Gives an answer to the client: the faults that come before it, its head, and its body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from app.simulator.errors import error_body
from app.simulator.routes import JSON
from app.simulator.steering import UNSTEERED
from app.simulator.stream import StreamPlayer
from app.simulator.wire import Wire

if TYPE_CHECKING:
    from app.simulator.channel import Headers
    from app.simulator.events import EventSource
    from app.simulator.exchange import Exchange
    from app.simulator.log import ServedOutcome
    from app.simulator.steering import Steering

HTML = b"<!doctype html>\n<title>502 Bad Gateway</title>\n<h1>502 Bad Gateway</h1>\n"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
_CONSTANT_HEADERS: Headers = [
    (b"openai-version", b"2020-10-01"),
    (b"x-ratelimit-limit-requests", b"30000"),
    (b"x-ratelimit-limit-tokens", b"150000000"),
    (b"x-ratelimit-remaining-requests", b"29999"),
    (b"x-ratelimit-remaining-tokens", b"149999000"),
    (b"x-ratelimit-reset-requests", b"2ms"),
    (b"x-ratelimit-reset-tokens", b"0s"),
]
_ERRORS = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    409: ("invalid_request_error", "conflict"),
    429: ("requests", "rate_limit_exceeded"),
}


class Answer(Protocol):
    """What every endpoint's answer can do."""

    @property
    def complete(self) -> bool:
        """Whether it came to its own end."""
        ...

    @property
    def failed_status(self) -> int:
        """The status under which ``failed_body`` goes out."""
        ...

    @property
    def content_type(self) -> bytes:
        """What ``body`` is."""
        ...

    def body(self) -> bytes:
        """The answer as one body."""
        ...

    def failed_body(self) -> bytes:
        """The answer that failed after the work was done."""
        ...


async def answer_wholly(exchange: Exchange, answer: Answer) -> None:
    """The answer as one JSON body."""
    outcome: ServedOutcome = "completed" if answer.complete else "incomplete"
    if exchange.steering is UNSTEERED:
        body = answer.body()
        exchange.bill_all()
        await send_body(exchange, 200, answer.content_type, body, outcome)
        return
    if await fails_before_head(exchange):
        return
    if not await _time_of_generation(exchange):
        exchange.end("disconnected")
        return
    exchange.bill_all()
    if exchange.steering.fail_after is not None:
        await _send_steered(exchange, answer.failed_status, JSON, answer.failed_body(), "failed")
        return
    await _send_steered(exchange, 200, answer.content_type, answer.body(), outcome)


async def answer_in_events(exchange: Exchange, answer: Answer, source: EventSource) -> None:
    """The answer as a stream."""
    steering = exchange.steering
    if steering is not UNSTEERED and await fails_before_head(exchange):
        return
    exchange.bill_input()
    exchange.served.status = steering.status or 200
    await exchange.channel.start(exchange.served.status, head_of(exchange, EVENT_STREAM))
    await StreamPlayer(exchange, source, complete=answer.complete).play()


async def send_body(
    exchange: Exchange,
    status: int,
    content_type: bytes,
    body: bytes,
    outcome: ServedOutcome,
    more: Headers | None = None,
) -> None:
    """A head and a whole body; the entry in the log is complete before the client has them."""
    headers = head_of(exchange, content_type)
    headers.append((b"content-length", b"%d" % len(body)))
    if more:
        headers.extend(more)
    exchange.served.status = status
    exchange.end(outcome)
    await exchange.channel.start(status, headers)
    await exchange.channel.finish(body)


def head_of(exchange: Exchange, content_type: bytes) -> Headers:
    """The response's headers, less its length."""
    elapsed_ms = exchange.clock.now_ms() - exchange.served.started_ms
    headers: Headers = [
        (b"content-type", content_type),
        (b"x-request-id", exchange.request_id),
        (b"openai-processing-ms", b"%d" % elapsed_ms),
        *_CONSTANT_HEADERS,
    ]
    steering = exchange.steering
    if steering is not UNSTEERED:
        if steering.content_encoding is not None:
            headers.append((b"content-encoding", steering.content_encoding.encode()))
        headers.extend((name.encode(), value.encode()) for name, value in steering.headers.items())
    return headers


async def fails_before_head(exchange: Exchange) -> bool:
    """Play what is steered to happen before the first byte; whether that was the end."""
    steering, channel = exchange.steering, exchange.channel
    if steering.first_ms:
        await channel.pause(steering.first_ms / 1000)
        if channel.gone:
            exchange.bill_input()
            exchange.end("disconnected")
            return True
    if steering.cut == "head":
        exchange.bill_all() if not exchange.served.stream else exchange.bill_input()
        exchange.end("cut")
        await channel.cut(reset=steering.cut_how == "reset")
    elif steering.redirect is not None:
        exchange.bill_nothing()
        location = [(b"location", steering.redirect.encode())]
        await send_body(exchange, steering.status or 307, JSON, b"", "refused", location)
    elif steering.error is not None:
        exchange.bill_nothing()
        await _send_error(exchange, steering, steering.error)
    elif steering.html:
        exchange.bill_nothing()
        await send_body(exchange, steering.status or 200, b"text/html", HTML, "failed")
    else:
        return False
    return True


async def _send_error(exchange: Exchange, steering: Steering, status: int) -> None:
    kind, code = _ERRORS.get(status, ("server_error", None) if status >= 500 else ("invalid_request_error", None))
    code = steering.error_code or code
    exchange.served.error_code = code
    message = f"The simulator was steered into status {status}."
    more = [(b"retry-after", steering.retry_after.encode())] if steering.retry_after is not None else None
    await send_body(exchange, status, JSON, error_body(message, kind, None, code), "refused", more)


async def _time_of_generation(exchange: Exchange) -> bool:
    """Wait as long as the tokens take to come; False if the client left meanwhile."""
    pace_s = exchange.steering.pace_ms / 1000
    exchange.bill_input()
    if not pace_s:
        return True
    channel, used, clock = exchange.channel, exchange.used, exchange.clock
    begun_s = clock.monotonic_s()
    await channel.pause(pace_s * used.output_tokens)
    if channel.gone:
        tokens = min(int((clock.monotonic_s() - begun_s) / pace_s), used.output_tokens)
        exchange.bill_output(tokens, min(tokens, used.reasoning_tokens))
    return not channel.gone


async def _send_steered(
    exchange: Exchange, status: int, content_type: bytes, body: bytes, outcome: ServedOutcome
) -> None:
    """A body that may be broken, cut, stalled or sliced."""
    steering, channel = exchange.steering, exchange.channel
    wire = Wire(steering)
    data = body[:-2] if steering.badjson else body
    writes = [*wire.feed_bytes(data), *wire.flush()]
    headers = head_of(exchange, content_type)
    if not steering.chunk:
        headers.append((b"content-length", b"%d" % sum(map(len, writes))))
    exchange.served.status = steering.status or status
    await channel.start(exchange.served.status, headers)
    if steering.head_ms:
        await channel.pause(steering.head_ms / 1000)
    if steering.cut_after is not None or steering.stall_after is not None:
        whole = b"".join(writes)
        await channel.write(whole[: len(whole) // 2])
        writes = [whole[len(whole) // 2 :]]
    if steering.cut_after is not None:
        exchange.end("cut")
        await channel.cut(reset=steering.cut_how == "reset")
        return
    if steering.stall_after is not None:
        await channel.pause(steering.stall_s)
    for at, write in enumerate(writes):
        if at and wire.between_s:
            await channel.pause(wire.between_s)
        if channel.gone:
            exchange.end("disconnected")
            return
        if at == len(writes) - 1:
            exchange.end(outcome)
        await channel.write(write)
    await channel.finish()
