"""What a run is made of."""

from __future__ import annotations

INPUT_NANOUSD, CACHED_NANOUSD, OUTPUT_NANOUSD = 2_000, 500, 8_000
"""Per token: the configuration's prices, in numbers that need no rounding."""

LOAD_S = 13.0
"""Clients ask for so long, or until the last fault is over."""

REST_S_MAX = 60.0
LOST_NODE_REST_S_MAX = 130.0
"""What a lost node had settled is its own for a minute before others bring it into SQL."""

UPSTREAM_KEY = "sk-canary-upstream"
FIRST_BYTE_S = 3.0
IDLE_S = 2.5

CONFIGURATION = """
upstreams:
  sim:
    base_url: {base_url}
    api_key: {key}
    timeouts: {{connect_s: 1, first_byte_s: {first_byte_s}, idle_s: {idle_s}}}
    limits: {{concurrency: {upstream_concurrency}}}
models:
  - {{match: "*", upstream: sim}}
prices:
  - {{model: "sim-*", input_per_mtok_usd: 2, cached_per_mtok_usd: 0.5, output_per_mtok_usd: 8}}
stream: {{on_disconnect: {on_disconnect}, drain_s_max: 5}}
server: {{drain_delay_s: 0, drain_s_max: 10}}
"""
