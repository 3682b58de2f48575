"""Clients in environments of their own, against a real gateway with the built-in simulator: ``make sdks``.

A script runs all scenarios of a client in one go; each scenario is then a test, that compares what it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app.edge.endpoints import FAMILIES
from tests.fakes.gateway import RunningGateway
from tests.sdks.environments import Outcomes, run_node, run_python


class Clients:
    """Runs scripts, each once, with the gateway's address and key in the environment, and nothing else changed."""

    def __init__(self, gateway: RunningGateway) -> None:
        def key(name: str, *options: str) -> str:
            given = ("--endpoints", ",".join(FAMILIES))
            made = gateway.json("keys", "create", "--team", "default", "--name", name, *given, *options)
            return str(made["key"])

        self._variables = {
            "OPENAI_BASE_URL": gateway.base_url,
            "OPENAI_API_KEY": key("wide"),
            "NARROW_KEY": gateway.key,
            "SPENT_KEY": key("spent", "--budget-usd", "0.00000001", "--budget-window", "total"),
        }
        self._outcomes: dict[tuple[str, ...], Outcomes] = {}

    def found(
        self, environment: str, script: str, arguments: Sequence[str], names: Sequence[str], scenario: str
    ) -> Any:
        """What ``scenario`` found, one of ``names``, which all run when the first of them is asked for."""
        of = (environment, script, *arguments)
        if of not in self._outcomes:
            self._outcomes[of] = (
                run_node(script, arguments, names, **self._variables)
                if script.endswith(".mjs")
                else run_python(environment, script, arguments, names, **self._variables)
            )
        outcome = self._outcomes[of][scenario]
        assert "failed" not in outcome, outcome["failed"]
        return outcome["found"]


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("sdks")) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def clients(gateway) -> Clients:
    return Clients(gateway)
