"""How an upstream is said to be, and since when."""

from __future__ import annotations

import time
from datetime import datetime

import httpx

from tests.fakes.fleet import wait_for

CALLS = 24
FAILED = 3
QUARTER_S = 900


def test_an_upstream_was_not_unwell_before_it_was_asked(gateway, admin):
    begun = time.time()
    with httpx.Client(headers=gateway.headers, timeout=30) as client:
        for number in range(CALLS):
            text = "Hello [[sim: error=500]]" if number < FAILED else "Hello [[sim: tokens=1]]"
            body = {"model": "gpt-4o", "input": text, "max_output_tokens": 16}
            client.post(f"{gateway.base_url}/responses", json=body)

    def simulator() -> dict:
        return admin.ask("GET", "/upstreams")["data"][0]

    wait_for(lambda: simulator()["state"] == "degraded")
    since = datetime.fromisoformat(simulator()["since"]).timestamp()
    assert begun - begun % QUARTER_S <= since <= time.time()
