"""What an application does through langchain-openai: ``python langchain_python.py responses|chat SCENARIO …``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from scenarios import Scenarios

MODEL = "gpt-4o"
by_responses = sys.argv[1] == "responses"
scenario = Scenarios()


class Sum(BaseModel):
    """A sum."""

    total: int


@tool
def get_capital(country: str) -> str:
    """The capital of a country."""
    return "Paris"


def model(**settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, temperature=0, use_responses_api=by_responses, **settings)


def text_of(message: Any) -> str:
    return str(message.text)


@scenario
async def answer() -> dict[str, Any]:
    blocking, other = model().invoke("What is 2+2?"), await model().ainvoke("What is 2+2?")
    return {
        "say 4": ["4" in text_of(blocking), "4" in text_of(other)],
        "usage": blocking.usage_metadata["total_tokens"] > 0,
        "by responses": blocking.response_metadata["id"].startswith("resp_")
        if "id" in blocking.response_metadata
        else False,
    }


@scenario
async def streamed() -> dict[str, Any]:
    chunks = [chunk async for chunk in model(stream_usage=True).astream("Tell me a story.")]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return {
        "in parts": len(chunks) > 2,
        "joined": "".join(text_of(chunk) for chunk in chunks) == text_of(whole) != "",
        "usage": whole.usage_metadata["output_tokens"] > 0,
    }


@scenario
async def tools() -> dict[str, Any]:
    bound = model().bind_tools([get_capital])
    messages: list[Any] = [HumanMessage("Use get_capital for France.")]
    called = await bound.ainvoke(messages)
    call = called.tool_calls[0]
    messages += [called, ToolMessage(get_capital.invoke(call["args"]), tool_call_id=call["id"])]
    answered = await bound.ainvoke(messages)
    return {"called": call["name"], "answered": len(text_of(answered)) > 0, "calls again": len(answered.tool_calls)}


@scenario
async def structured() -> dict[str, Any]:
    found = {}
    for method in ("json_schema", "function_calling"):
        value = await model().with_structured_output(Sum, method=method).ainvoke("A sum.")
        found[method] = isinstance(value.total, int)
    return found


@scenario
async def batched() -> dict[str, Any]:
    answers = await model().abatch([f"What is {n}+1?" for n in range(1, 9)])
    return {"right": [str(n + 1) in text_of(answered) for n, answered in enumerate(answers, 1)]}


@scenario
async def remembered() -> dict[str, Any]:
    """By the id of the answer before, which the library finds in the history by itself."""
    settings = {"use_previous_response_id": True} if by_responses else {}
    talking = model(**settings)
    history: list[Any] = [HumanMessage("My name is Ada.")]
    history += [await talking.ainvoke(history), HumanMessage("What is my name?")]
    return {"knows": "Ada" in text_of(await talking.ainvoke(history))}


@scenario
async def embedded() -> dict[str, Any]:
    # Else it asks the network for a tokenizer.
    vectors = OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False)
    return {"dimensions": [len(row) for row in await vectors.aembed_documents(["a", "b"])]}


asyncio.run(scenario.run(sys.argv[2:]))
