"""Every place in a body where an id can stand, by the endpoint that takes it."""

from __future__ import annotations

from typing import Any

ID = "«id»"
"""Stands for the id."""

CONTENT = {"role": "user", "content": [{"type": "input_file", "file_id": ID}]}
IMAGE = {"role": "user", "content": [{"type": "input_image", "file_id": ID}]}
SHOT = {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "file_id": ID}}
MASK = {"type": "image_generation", "input_image_mask": {"file_id": ID}}
SHELL = {"type": "shell", "environment": {"type": "container_auto", "skills": [{"skill_id": ID}]}}
REFERENCED = {"type": "shell", "environment": {"type": "container_reference", "container_id": ID}}

PYTHON = {"type": "code_interpreter", "container": ID}

OF_RESPONSES: list[dict[str, Any]] = [
    {"previous_response_id": ID},
    {"conversation": ID},
    {"conversation": {"id": ID}},
    {"prompt": {"id": ID}},
    {"prompt": {"id": ID, "variables": {"a": "b"}}},
    {"input": [{"type": "item_reference", "id": ID}]},
    {"input": [{"id": ID}]},
    {"input": [{"type": "reasoning", "id": ID, "summary": []}]},
    {"input": [{"type": "image_generation_call", "id": ID, "status": "completed"}]},
    {"input": [{"type": "mcp_approval_response", "approval_request_id": ID, "approve": True}]},
    {"input": [{"type": "code_interpreter_call", "id": "ci_1", "code": "1", "container_id": ID, "outputs": []}]},
    {"input": [CONTENT]},
    {"input": [IMAGE]},
    {"input": [SHOT]},
    {"tools": [{"type": "file_search", "vector_store_ids": [ID]}]},
    {"tools": [PYTHON]},
    {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": [ID]}}]},
    {"input": [{"type": "additional_tools", "role": "developer", "tools": [PYTHON]}]},
    {"input": [{"type": "tool_search_output", "tools": [PYTHON]}]},
    {"tools": [MASK]},
    {"tools": [SHELL]},
    {"tools": [REFERENCED]},
    {"tools": [{"type": "mcp", "server_label": "x", "tunnel_id": ID}]},
    {"something_new_id": ID},
    {"something": {"deep": [{"new_ids": [ID]}]}},
]

OF_CHAT: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": ID}}]}]},
    {"messages": [{"role": "assistant", "audio": {"id": ID}}, {"role": "user", "content": "and?"}]},
    {"messages": [{"role": "user", "content": "hi"}], "something_new_id": ID},
]

MODEL = {"model": "gpt-4o"}

BODIES: dict[str, list[dict[str, Any]]] = {
    "/responses": [{**MODEL, "input": "hi", **place} for place in OF_RESPONSES],
    "/responses/compact": [{**MODEL, "input": "hi", **place} for place in OF_RESPONSES[:6]],
    "/responses/input_tokens": [{**MODEL, "input": "hi", **place} for place in OF_RESPONSES],
    "/chat/completions": [{**MODEL, **place} for place in OF_CHAT],
    "/conversations": [
        {"items": [{"type": "message", "role": "user", "content": CONTENT["content"]}]},
        {"items": [{"type": "additional_tools", "role": "developer", "tools": [PYTHON]}]},
    ],
    "/images/edits": [{"model": "gpt-image-1", "prompt": "a", "images": [{"file_id": ID}]}],
    "/uploads/{upload}/complete": [{"part_ids": [ID]}],
    "/vector_stores": [{"file_ids": [ID]}, {"name": "a", "file_ids": ["", ID]}],
    "/vector_stores/{vector_store}/files": [{"file_id": ID}],
    "/vector_stores/{vector_store}/file_batches": [{"file_ids": [ID]}, {"files": [{"file_id": ID}]}],
    "/containers": [{"name": "a", "file_ids": [ID]}],
    "/containers/{container}/files": [{"file_id": ID}],
    "/batches": [{"input_file_id": ID, "endpoint": "/v1/responses", "completion_window": "24h"}],
    "/fine_tuning/jobs": [
        {**MODEL, "training_file": ID},
        {**MODEL, "training_file": "", "validation_file": ID},
    ],
    "/evals": [{"data_source_config": {"type": "custom"}, "testing_criteria": [{"file_id": ID}]}],
    "/evals/{eval}/runs": [
        {"data_source": {"type": "jsonl", "source": {"type": "file_id", "id": ID}}},
        {"data_source": {"type": "completions", "sampling_params": {"tools": [PYTHON]}}},
        {"data_source": {"type": "jsonl", "source": {"type": "file_content", "content": [], "file_id": ID}}},
    ],
    "/videos": [{"model": "sora-2", "prompt": "a", "input_reference": {"file_id": ID}}],
    "/videos/edits": [{"prompt": "a", "video": {"id": ID}}],
    "/videos/extensions": [{"prompt": "a", "video": {"id": ID}}],
    "/assistants": [
        {**MODEL, "tool_resources": {"file_search": {"vector_store_ids": [ID]}}},
        {**MODEL, "tool_resources": {"code_interpreter": {"file_ids": [ID]}}},
    ],
    "/threads": [{"messages": [{"role": "user", "content": "a", "attachments": [{"file_id": ID}]}]}],
    "/threads/{thread}/messages": [
        {"role": "user", "content": [{"type": "image_file", "image_file": {"file_id": ID}}]},
    ],
    "/threads/runs": [{"assistant_id": ID}],
    "/threads/{thread}/runs": [{"assistant_id": ID}],
}
"""POST bodies, with an id in one place each."""

FORMS: dict[str, list[dict[str, str]]] = {
    "/images/edits": [{"model": "gpt-image-1", "image_id": ID}],
    "/videos": [{"model": "sora-2", "prompt": "a", "reference_video_id": ID}],
    "/containers/{container}/files": [{"file_id": ID}],
}
"""The same for forms."""

QUERIES: dict[str, list[str]] = {
    "/files": [f"after={ID}"],
    "/batches": [f"after={ID}"],
    "/vector_stores": [f"after={ID}"],
    "/threads/{thread}/messages": [f"run_id={ID}"],
    "/responses/{response}/input_items": [f"conversation_id={ID}", f"response%5Fid={ID}"],
}
"""The same for the query of a GET."""

NAMES_NOTHING = {
    "completions": "its prompt is text",
    "embeddings": "its input is text",
    "models": "the gateway answers it; to delete one belongs to fine_tuning",
    "moderations": "its input is text and pictures",
    "realtime": "its only path is a WebSocket, whose frames are passed as they are; what they make lives in it",
    "audio": "a form of text and one file; voices are a member named voice, and are looked up",
}
"""Families with no place for an id that a team could have, and why."""
