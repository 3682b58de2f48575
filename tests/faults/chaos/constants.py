"""What a run is made of."""

from __future__ import annotations

import msgspec


class Prices(msgspec.Struct, frozen=True):
    """Nano-dollars per token: numbers that need no rounding."""

    input: int = 2_000
    cached: int = 500
    output: int = 8_000

    def of(self, tokens: tuple[int, int, int]) -> int:
        """What (input, cached, output) tokens cost; the cached ones are among the input."""
        whole, cached, output = tokens
        return (whole - cached) * self.input + cached * self.cached + output * self.output

    def __str__(self) -> str:
        named = {"input": self.input, "cached": self.cached, "output": self.output}
        return ", ".join(f"{name}_per_mtok_usd: {nanousd / 1000}" for name, nanousd in named.items())


PRICES = Prices()

LOAD_S = 13.0
"""Clients ask for so long, or until the last fault is over."""

REST_S_MAX = 60.0
LOST_NODE_REST_S_MAX = 130.0
"""What a lost node had settled is its own for a minute before others bring it into SQL."""

UPSTREAM_KEY = "sk-canary-upstream"
FIRST_BYTE_S = 3.0
IDLE_S = 2.5


def configuration_of(base_url: str, prices: Prices = PRICES, on_disconnect: str = "drain") -> str:
    """A gateway's configuration file."""
    return f"""
upstreams:
  sim:
    base_url: {base_url}
    api_key: {UPSTREAM_KEY}
    timeouts: {{connect_s: 1, first_byte_s: {FIRST_BYTE_S}, idle_s: {IDLE_S}}}
    limits: {{concurrency: 2000}}
models:
  - {{match: "*", upstream: sim}}
prices:
  - {{model: "sim-*", {prices}}}
stream: {{on_disconnect: {on_disconnect}, drain_s_max: 5}}
server: {{drain_delay_s: 0, drain_s_max: 10}}
"""
