"""Whatever is posted anywhere is answered or refused, and never breaks the simulator."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.simulator.app import Simulator

PATHS = (
    "/v1/files", "/v1/uploads", "/v1/uploads/upload_1/parts", "/v1/batches", "/v1/vector_stores",
    "/v1/vector_stores/ID/search", "/v1/vector_stores/ID/files", "/v1/vector_stores/ID/file_batches", "/v1/containers",
    "/v1/fine_tuning/jobs", "/v1/evals", "/v1/skills", "/v1/conversations", "/v1/conversations/CONV",
    "/v1/conversations/CONV/items", "/v1/responses/compact", "/v1/responses/input_tokens", "/v1/completions",
    "/v1/images/generations", "/v1/images/edits", "/v1/audio/transcriptions", "/v1/audio/speech", "/v1/moderations",
    "/v1/videos", "/v1/responses",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.floats(allow_nan=False), st.text(max_size=6),
    st.sampled_from(["message", "user", "file-bytes-100", "/v1/responses", "24h", "item_reference", "queue_ms=1", "x"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from("type role content id text sim file_id name".split()), inner, max_size=4),
    ),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    "id object model input prompt messages items metadata name file_id file_ids files query max_num_results endpoint "
    "input_file_id completion_window bytes filename purpose mime_type n stream size seconds images voice training_file "
    "data_source_config testing_criteria conversation previous_response_id background store attributes "
    "partial_images response_format".split()
)


async def posted(simulator: Simulator, path: str, data: bytes) -> tuple[int, bytes]:
    sent: list[Any] = []
    first = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive() -> Any:
        if first:
            return first.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await simulator(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), body=st.dictionaries(MEMBERS, VALUES, max_size=6))
def test_no_body_makes_anything_fail(path, body):
    async def run() -> tuple[int, bytes]:
        simulator = Simulator()
        store = json.loads((await posted(simulator, "/v1/vector_stores", b"{}"))[1])["id"]
        conversation = json.loads((await posted(simulator, "/v1/conversations", b"{}"))[1])["id"]
        whole = path.replace("ID", store).replace("CONV", conversation)
        answer = await posted(simulator, whole, json.dumps(body).encode())
        await asyncio.sleep(0)
        simulator.stop()
        return answer

    status, data = asyncio.run(run())
    assert status in (200, 400, 404, 413, 429)
    if status != 200:
        assert set(json.loads(data)["error"]) == {"message", "type", "param", "code"}
