"""``/batches``: the requests of a file, answered one by one into another file, and billed as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from app.simulator.channel import Channel
from app.simulator.errors import REFUSED, RequestRefused, refusal_of, refuse_missing, refuse_value
from app.simulator.exchange import Exchange
from app.simulator.identifiers import new_request_id, random_hex
from app.simulator.log import BilledUsage, ServedLog
from app.simulator.pages import page_of
from app.simulator.resources.blobs import PIECE_BYTES, Blob
from app.simulator.resources.table import steering_of_metadata
from app.simulator.routes import Reply, json_reply
from app.simulator.steering import UNSTEERED
from app.simulator.usage_report import responses_usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from app.core.clock import Clock
    from app.simulator.exchange import Endpoint
    from app.simulator.log import Served, ServedOutcome
    from app.simulator.resources.blobs import Content
    from app.simulator.resources.file_store import FileStore
    from app.simulator.resources.table import Members, Tables
    from app.simulator.routes import Request, Routes
    from app.simulator.steering import Steering

PATTERN = "batches"
RUNNING_MAX = 100
LINES_MAX = 50_000
LINE_BYTES_MAX = 16 * 1024 * 1024
LINES_PER_TURN = 16
WINDOW_S = 24 * 3600
SUPPORTED = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/images/generations",
)


class Line(msgspec.Struct):
    """One request of a batch."""

    custom_id: str
    url: str
    body: dict[str, Any]
    method: str = "POST"


class Outcome(NamedTuple):
    """What one request has led to."""

    status: int
    body: bytes
    used: BilledUsage


class Batches:
    """The endpoints, and the batches that run."""

    def __init__(
        self,
        tables: Tables,
        files: FileStore,
        endpoints: Mapping[str, tuple[str, Endpoint]],
        log: ServedLog,
        clock: Clock,
    ) -> None:
        self._tables = tables
        self._files = files
        self._endpoints = endpoints
        self._log = log
        self._clock = clock
        self._running: dict[str, BatchRun] = {}

    def add_to(self, routes: Routes) -> None:
        routes.add("POST", PATTERN, self.create)
        routes.add("GET", PATTERN, self.list)
        routes.add("GET", "batches/{}", self.get)
        routes.add("POST", "batches/{}/cancel", self.cancel)

    async def create(self, request: Request) -> Reply:
        members = await request.members()
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(members.get(name), str):
                refuse_missing(name)
        if members["endpoint"] not in SUPPORTED:
            refuse_value("endpoint", f"Invalid value: '{members['endpoint']}'. Supported values are: {SUPPORTED}.")
        steering = steering_of_metadata(members)
        stored = self._files.find(members["input_file_id"])
        if len(self._running) >= RUNNING_MAX:
            message = f"At most {RUNNING_MAX} batches run at once."
            raise RequestRefused(429, message, kind="requests", code="rate_limit_exceeded")
        shown = _batch_object(members, self._tables.now_s())
        self._tables.keep((PATTERN, shown["id"]), shown)
        attempt_id = request.headers.get(b"x-client-request-id", b"").decode("latin-1")
        served = self._log.open(attempt_id, "batches", self._clock.now_ms())
        served.response_id, served.status, served.service_tier = shown["id"], 200, "batch"
        run = self._running[shown["id"]] = BatchRun(self, shown, served, steering)
        run.start(stored.content)
        return json_reply(shown)

    async def list(self, request: Request) -> Reply:
        return json_reply(page_of(self._tables.below((PATTERN,)), request))

    async def get(self, request: Request, batch_id: str) -> Reply:
        del request
        return json_reply(self._tables.found((PATTERN, batch_id)))

    async def cancel(self, request: Request, batch_id: str) -> Reply:
        del request
        shown = self._tables.found((PATTERN, batch_id))
        run = self._running.get(batch_id)
        if run is not None:
            run.end("cancelled", "cancelled")
        return json_reply(shown)

    def stop(self) -> None:
        """End them all."""
        for run in list(self._running.values()):
            run.end("cut", "expired")

    def note(self, served: Served) -> None:
        self._log.note(served)

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def finish(self, shown: Members, output: Blob, errors: Blob) -> None:
        """A batch has ended: what it has written becomes files."""
        self._running.pop(shown["id"], None)
        for name, blob in (("output", output), ("error", errors)):
            if blob.size:
                kept = self._files.keep(blob, f"{shown['id']}_{name}.jsonl", "batch_output")
                shown[f"{name}_file_id"] = kept["id"]
            else:
                blob.close()

    async def answer(self, line: Line) -> Outcome:
        """What the endpoint answers to one request. The log has the batch, and so nothing of this."""
        captured = _Captured()
        channel = Channel({}, captured.receive, captured.send)
        apart = ServedLog(entries_max=1)
        served = apart.open("", line.url, self._clock.now_ms())
        exchange = Exchange(channel, served, UNSTEERED, BilledUsage(), self._clock, new_request_id(), apart)
        try:
            if line.url not in SUPPORTED or line.body.get("stream") or line.body.get("background"):
                refuse_value("url", f"Not a request that a batch can make: {line.url}.")
            await self._endpoints[line.url][1](exchange, msgspec.json.encode(line.body), None)
        except REFUSED as error:
            refusal = refusal_of(error)
            return Outcome(refusal.status, refusal.body(), BilledUsage())
        finally:
            channel.close()
        return Outcome(captured.status, bytes(captured.body), served.usage)

    def __repr__(self) -> str:
        return f"Batches(running={len(self._running)}/{RUNNING_MAX})"


class BatchRun:
    """One batch while it runs; ``shown`` is its object, which changes."""

    def __init__(self, batches: Batches, shown: Members, served: Served, steering: Steering) -> None:
        self._batches = batches
        self._shown = shown
        self._served = served
        self._steering = steering
        self._output, self._errors = Blob(), Blob()
        self._task: asyncio.Task[None] | None = None

    def start(self, content: Content) -> None:
        self._task = asyncio.create_task(self._run(content))

    def end(self, outcome: ServedOutcome, status: str) -> None:
        """The last that happens to it."""
        if self._served.ended_ms is not None:
            return
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._mark(status)
        used = self._served.usage
        usage = responses_usage(used)
        del usage["input_tokens_details"]["cache_write_tokens"]
        self._shown["usage"] = usage
        self._served.close(outcome, self._batches.now_ms())
        self._batches.note(self._served)
        self._batches.finish(self._shown, self._output, self._errors)

    async def _run(self, content: Content) -> None:
        content.hold()
        try:
            await asyncio.sleep(self._steering.queue_ms / 1000)
            lines = _requests_of(content)
            self._mark("in_progress")
            self._shown["request_counts"]["total"] = len(lines)
            self._served.model = self._shown["model"] = str(lines[0].body.get("model") or "")
            for index, line in enumerate(lines):
                if self._steering.pace_ms or index % LINES_PER_TURN == 0:
                    await asyncio.sleep(self._steering.pace_ms / 1000)
                self._take(line, await self._batches.answer(line))
            self._mark("finalizing")
            self.end("completed", "completed")
        except RequestRefused as refusal:
            error = {"code": refusal.code, "message": refusal.message, "param": refusal.param, "line": None}
            self._shown["errors"] = {"object": "list", "data": [error]}
            self.end("failed", "failed")
        finally:
            content.release()

    def _take(self, line: Line, outcome: Outcome) -> None:
        response = {
            "status_code": outcome.status,
            "request_id": new_request_id().decode(),
            "body": msgspec.Raw(outcome.body),
        }
        told = {"id": f"batch_req_{random_hex(32)}", "custom_id": line.custom_id, "response": response, "error": None}
        good = outcome.status == 200
        (self._output if good else self._errors).write(msgspec.json.encode(told) + b"\n")
        self._shown["request_counts"]["completed" if good else "failed"] += 1
        served, used = self._served, outcome.used
        if good:
            served.billed = True
            served.usage.input_tokens += used.input_tokens
            served.usage.cached_tokens += used.cached_tokens
            served.usage.output_tokens += used.output_tokens
            served.usage.reasoning_tokens += used.reasoning_tokens
            self._batches.note(served)

    def _mark(self, status: str) -> None:
        self._shown["status"] = status
        self._shown[f"{status}_at"] = self._batches.now_ms() // 1000


class _Captured:
    """A client that keeps what it is sent."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


def _batch_object(members: Members, created_s: int) -> Members:
    moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    return {
        "id": f"batch_{random_hex(32)}",
        "object": "batch",
        "endpoint": members["endpoint"],
        "model": None,
        "errors": None,
        "input_file_id": members["input_file_id"],
        "completion_window": members["completion_window"],
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": created_s,
        "expires_at": created_s + WINDOW_S,
        **{f"{moment}_at": None for moment in moments},
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": None,
        "metadata": members.get("metadata"),
    }


def _lines_of(content: Content) -> Iterator[bytes]:
    """The lines of a file, read in pieces."""
    held, offset, count = b"", 0, 0
    while offset < content.size or held:
        piece = content.read(offset, PIECE_BYTES) if offset < content.size else b"\n"
        offset += len(piece)
        *lines, held = (held + piece).split(b"\n")
        for line in lines:
            if line.strip():
                count += 1
                yield line
        if count > LINES_MAX or len(held) > LINE_BYTES_MAX:
            raise RequestRefused(400, f"At most {LINES_MAX} lines of {LINE_BYTES_MAX} bytes.", code="too_many_tasks")


def _requests_of(content: Content) -> list[Line]:
    lines = [_line_of(data) for data in _lines_of(content)]
    if not lines:
        raise RequestRefused(400, "The input file is empty.", code="empty_file")
    return lines


def _line_of(data: bytes) -> Line:
    try:
        return msgspec.json.decode(data, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(400, f"This line is no request: {error}", code="invalid_json_line") from error
