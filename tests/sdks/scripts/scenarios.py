"""What the scripts have in common: scenarios by name, run one after the other, a line of JSON for each.

A script runs in an environment of its own, in which there is the client that it is about and none of this project.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

SCENARIO_TIMEOUT_S = 60.0

Scenario = Callable[..., Awaitable[dict[str, Any]]]


class Scenarios:
    """Those of one script."""

    def __init__(self) -> None:
        self._by_name: dict[str, Scenario] = {}

    def __call__(self, scenario: Scenario) -> Scenario:
        """As a decorator: one more, by the name of its function."""
        self._by_name[scenario.__name__] = scenario
        return scenario

    async def run(self, names: Sequence[str], *arguments: Any) -> None:
        """Those with these names: each leaves what it found, or why it failed."""
        for name in names:
            try:
                async with asyncio.timeout(SCENARIO_TIMEOUT_S):
                    outcome = {"found": await self._by_name[name](*arguments)}
            except Exception:
                outcome = {"failed": traceback.format_exc()}
            sys.stdout.write(json.dumps({"scenario": name, **outcome}) + "\n")
            sys.stdout.flush()


async def done(value: Any) -> Any:
    """What a call gives, of a client that blocks or of one that does not."""
    return await value if inspect.isawaitable(value) else value


async def each(values: Any) -> AsyncIterator[Any]:
    """The events of a stream, or the rows of all pages of a list, of either kind of client."""
    if hasattr(values, "__aiter__"):
        async for value in values:
            yield value
        return
    for value in values:
        yield value


@asynccontextmanager
async def opened(manager: Any) -> AsyncIterator[Any]:
    """A context manager of either kind of client."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
        return
    with manager as value:
        yield value
