"""Libraries that stand on the SDKs, or do without them, as their users call them: by Responses and by chat completions."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.sdks

AGENTS: dict[str, dict[str, Any]] = {
    "answer": {"says 4": True, "usage": [1, True]},
    "tool": {"items": ["tool_call_item", "tool_call_output_item", "message_output_item"], "turns": 2},
    "streamed": {"joined": True, "items": ["tool_call_item", "tool_call_output_item", "message_output_item"]},
    "structured": {"total": True},
    "handed_over": {"last": "Second", "items": ["handoff_call_item", "handoff_output_item", "message_output_item"]},
    "remembered": {"knows": True},
    "chained": {"knows": True},
}
LANGCHAIN: dict[str, dict[str, Any]] = {
    "answer": {"say 4": [True, True], "usage": True, "by responses": True},
    "streamed": {"in parts": True, "joined": True, "usage": True},
    "tools": {"called": "get_capital", "answered": True, "calls again": 0},
    "structured": {"json_schema": True, "function_calling": True},
    "batched": {"right": [True] * 8},
    "remembered": {"knows": True},
    "embedded": {"dimensions": [1536, 1536]},
}
PYDANTIC: dict[str, dict[str, Any]] = {
    "answer": {"says 4": True, "usage": [1, True]},
    "tool": {"parts": ["user-prompt", "tool-call", "tool-return", "text"], "answered": True},
    "streamed": {"in parts": True, "last is whole": True},
    "streamed_tool": {"called": True, "answered": True},
    "structured": {"by tool": True, "native": True},
    "remembered": {"knows": True},
    "refused": {"status": 422, "code": "a_code"},
}
VERCEL: dict[str, dict[str, Any]] = {
    "answer": {"says 4": True, "usage": True, "finish_reason": "stop"},
    "streamed": {"in parts": True, "joined": True, "finish_reason": "stop", "usage": True},
    "tools": {"called": "get_capital", "steps": 2, "answered": True},
    "streamed_tools": {"called": True, "steps": 2, "errors": 0},
    "structured": {"total": True},
    "remembered": {"knows": True},
    "refused": {"status": 422, "code": "a_code", "to be retried": False},
    "embedded": {"dimensions": [1536, 1536]},
}
AI_SDK = {"6": ["ai", "@ai-sdk/openai"], "7": ["ai-7", "ai-sdk-openai-4"]}
"""By version, the names under which it and its provider are installed."""


@pytest.mark.parametrize("scenario", AGENTS)
@pytest.mark.parametrize("transport", ["http", "socket", "chat"])
def test_openai_agents(clients, transport, scenario):
    """``socket``: over WebSockets. Chat completions have nothing that an answer could go on from by its id."""
    found = clients.found("openai-agents", "agents_python.py", [transport], list(AGENTS), scenario)
    if (transport, scenario) == ("chat", "chained"):
        assert found == {"knows": False}
    else:
        assert found == AGENTS[scenario]


@pytest.mark.parametrize("scenario", LANGCHAIN)
@pytest.mark.parametrize("api", ["responses", "chat"])
def test_langchain_openai(clients, api, scenario):
    found = clients.found("langchain", "langchain_python.py", [api], list(LANGCHAIN), scenario)
    if scenario == "answer":
        assert found.pop("by responses") == (api == "responses")
    assert found == {name: value for name, value in LANGCHAIN[scenario].items() if name != "by responses"}


@pytest.mark.parametrize("scenario", PYDANTIC)
@pytest.mark.parametrize("api", ["responses", "chat"])
def test_pydantic_ai(clients, api, scenario):
    found = clients.found("pydantic-ai", "pydantic_python.py", [api], list(PYDANTIC), scenario)
    assert found == PYDANTIC[scenario]


@pytest.mark.parametrize("scenario", VERCEL)
@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize("version", AI_SDK)
def test_the_ai_sdk(clients, version, api, scenario):
    found = clients.found("node", "vercel_node.mjs", [*AI_SDK[version], api], list(VERCEL), scenario)
    assert found == VERCEL[scenario]
