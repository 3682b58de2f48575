"""What an application does through openai-agents: ``python agents_python.py http|socket|chat SCENARIO …``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from agents import Agent, ModelSettings, OpenAIProvider, RunConfig, Runner, SQLiteSession, function_tool
from pydantic import BaseModel
from scenarios import Scenarios

MODEL = "gpt-4o"
transport = sys.argv[1]
scenario = Scenarios()


class Sum(BaseModel):
    total: int


@function_tool
def get_capital(country: str) -> str:
    """The capital of a country."""
    return "Paris"


def agent(**settings: Any) -> Agent:
    settings.setdefault("model_settings", ModelSettings(temperature=0))
    return Agent(name="Assistant", instructions="You are a helpful assistant.", model=MODEL, **settings)


def kinds(result: Any) -> list[str]:
    return [item.type for item in result.new_items]


@scenario
async def answer(config: RunConfig) -> dict[str, Any]:
    result = await Runner.run(agent(), "What is 2+2?", run_config=config)
    usage = result.context_wrapper.usage
    return {"says 4": "4" in result.final_output, "usage": [usage.requests, usage.total_tokens > 0]}


@scenario
async def tool(config: RunConfig) -> dict[str, Any]:
    result = await Runner.run(agent(tools=[get_capital]), "Use get_capital for France.", run_config=config)
    return {"items": kinds(result), "turns": len(result.raw_responses)}


@scenario
async def streamed(config: RunConfig) -> dict[str, Any]:
    result = Runner.run_streamed(agent(tools=[get_capital]), "Use get_capital for France.", run_config=config)
    events = [event async for event in result.stream_events()]
    deltas = [
        event.data.delta
        for event in events
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    return {"joined": "".join(deltas) == result.final_output, "items": kinds(result)}


@scenario
async def structured(config: RunConfig) -> dict[str, Any]:
    result = await Runner.run(agent(output_type=Sum), "A sum.", run_config=config)
    return {"total": isinstance(result.final_output.total, int)}


@scenario
async def handed_over(config: RunConfig) -> dict[str, Any]:
    second = Agent(name="Second", instructions="You answer.", model=MODEL)
    first = agent(handoffs=[second])
    result = await Runner.run(first, "Use transfer_to_second. What is 2+2?", run_config=config)
    return {"last": result.last_agent.name, "items": kinds(result)}


@scenario
async def remembered(config: RunConfig) -> dict[str, Any]:
    """A session of the library's own, that sends the history again."""
    session = SQLiteSession("one")
    await Runner.run(agent(), "My name is Ada.", run_config=config, session=session)
    result = await Runner.run(agent(), "What is my name?", run_config=config, session=session)
    return {"knows": "Ada" in result.final_output}


@scenario
async def chained(config: RunConfig) -> dict[str, Any]:
    first = await Runner.run(agent(), "My name is Ada.", run_config=config)
    result = await Runner.run(
        agent(), "What is my name?", run_config=config, previous_response_id=first.last_response_id
    )
    return {"knows": "Ada" in result.final_output}


async def main() -> None:
    provider = OpenAIProvider(use_responses=transport != "chat", use_responses_websocket=transport == "socket")
    try:
        await scenario.run(sys.argv[2:], RunConfig(model_provider=provider, tracing_disabled=True))
    finally:
        await provider.aclose()


asyncio.run(main())
