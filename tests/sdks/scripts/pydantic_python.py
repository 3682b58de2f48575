"""What an application does through pydantic-ai: ``python pydantic_python.py responses|chat SCENARIO …``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from scenarios import Scenarios

MODEL = "gpt-4o"
model = OpenAIResponsesModel(MODEL) if sys.argv[1] == "responses" else OpenAIChatModel(MODEL)
scenario = Scenarios()


class Sum(BaseModel):
    total: int


def get_capital(country: str) -> str:
    """The capital of a country."""
    return "Paris"


def agent(**settings: Any) -> Agent[Any, Any]:
    settings.setdefault("model_settings", {"temperature": 0})
    return Agent(model, instructions="You are a helpful assistant.", **settings)


@scenario
async def answer() -> dict[str, Any]:
    result = await agent().run("What is 2+2?")
    return {"says 4": "4" in result.output, "usage": [result.usage.requests, result.usage.output_tokens > 0]}


@scenario
async def tool() -> dict[str, Any]:
    result = await agent(tools=[get_capital]).run("Use get_capital for France.")
    parts = [part.part_kind for message in result.all_messages() for part in message.parts]
    return {"parts": parts, "answered": len(result.output) > 0}


@scenario
async def streamed() -> dict[str, Any]:
    async with agent().run_stream("Tell me a story.") as result:
        texts = [text async for text in result.stream_text(debounce_by=None)]
        whole = await result.get_output()
    return {"in parts": len(texts) > 2, "last is whole": texts[-1] == whole}


@scenario
async def streamed_tool() -> dict[str, Any]:
    async with agent(tools=[get_capital]).run_stream("Use get_capital for France.") as result:
        whole = await result.get_output()
    parts = [part.part_kind for message in result.all_messages() for part in message.parts]
    return {"called": "tool-call" in parts, "answered": len(whole) > 0}


@scenario
async def structured() -> dict[str, Any]:
    by_tool = await agent(output_type=Sum).run("A sum.")
    native = await agent(output_type=NativeOutput(Sum)).run("A sum.")
    return {"by tool": isinstance(by_tool.output.total, int), "native": isinstance(native.output.total, int)}


@scenario
async def remembered() -> dict[str, Any]:
    first = await agent().run("My name is Ada.")
    second = await agent().run("What is my name?", message_history=first.all_messages())
    return {"knows": "Ada" in second.output}


@scenario
async def refused() -> dict[str, Any]:
    try:
        await agent().run("[[sim: error=422 error_code=a_code]] Go.")
    except ModelHTTPError as error:
        return {"status": error.status_code, "code": error.body["code"]}
    return {}


asyncio.run(scenario.run(sys.argv[2:]))
