from __future__ import annotations

import pytest


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_models_are_listed(caller, prefix):
    listed = (await caller.get(f"{prefix}/models")).json()
    assert [model["id"] for model in listed["data"]] == ["sim-large", "sim-mini", "sim-reasoning", "sim-embedding"]
    assert listed["object"] == "list"


async def test_any_model_is_there(client):
    assert [model.id async for model in client.models.list()]
    assert (await client.models.retrieve("sim-mini")).id == "sim-mini"
    assert (await client.models.retrieve("ft:gpt-4o:x")).owned_by == "headgate-simulator"


async def test_health(caller):
    assert (await caller.get("/healthz")).json() == {"status": "ok"}


async def test_the_log_is_served(caller):
    await caller.respond(text="2+2")
    served = await caller.served()
    (entry,) = (await caller.get(f"/simulator/log?id={caller.attempt_id}")).json()["entries"]
    assert entry == {
        "number": served.number,
        "attempt_id": caller.attempt_id,
        "endpoint": "responses",
        "started_ms": served.started_ms,
        "usage": {
            "input_tokens": served.usage.input_tokens,
            "cached_tokens": 0,
            "output_tokens": 6,
            "reasoning_tokens": 0,
            "seconds": 0,
        },
        "model": "sim-mini",
        "stream": False,
        "response_id": served.response_id,
        "service_tier": "default",
        "status": 200,
        "ended_ms": served.ended_ms,
        "billed": True,
        "outcome": "completed",
        "error_code": None,
        "written_events": 0,
    }
    by_response = (await caller.get(f"/simulator/log?id={served.response_id}")).json()
    assert by_response["entries"] == [entry]
    since = (await caller.get(f"/simulator/log?since={served.number - 1}")).json()
    assert since["entries"][0] == entry
    assert since["last_number"] >= served.number
    assert (await caller.get(f"/simulator/log?since={served.number}")).json()["entries"] == []
    assert (await caller.get("/simulator/log?since=x")).status == 400


async def test_the_log_is_cleared(caller, simulator):
    await caller.respond()
    assert (await caller.get("/simulator/log", "DELETE")).json()["entries"] == []
    assert len(simulator.log) == 0
