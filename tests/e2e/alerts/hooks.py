"""Receivers of webhooks on sockets of their own, and gateways that are told of them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Self

from tests.fakes.upstream import PlayedUpstream, SeenRequest

KEY = b"canary-secret-of-webhooks-24"
SECRET = "whsec_" + b64encode(KEY).decode()
PATH = "/services/canary-path"
OK = b"HTTP/1.1 204 No Content\r\n\r\n"
FAILED = b"HTTP/1.1 500 No\r\ncontent-length: 7\r\n\r\nnot now"
GONE = b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"


class Hook:
    """Answers with ``answers`` in turn, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self._server = PlayedUpstream(self._play)

    def _play(self, _seen: SeenRequest) -> list[Any]:
        return [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]]

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}{PATH}"

    @property
    def seen(self) -> list[SeenRequest]:
        return self._server.requests

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The messages that came, each checked as a receiver should."""
        found = []
        for seen in self.seen:
            headers = seen.headers
            assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + seen.body
            digest = b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
            assert headers["webhook-signature"] == f"v1,{digest}"
            event = json.loads(seen.body)
            if kind in {None, event["type"]}:
                found.append(event)
        return found


def alerting(targets: Mapping[str, str]) -> str:
    """The part of a configuration that names webhooks, by their URLs."""
    lines = ["alerts:", "  targets:"]
    lines += [f'    - {{name: {name}, webhook: {{url: "{url}", secret: "{SECRET}"}}}}' for name, url in targets.items()]
    return "\n".join(lines) + "\n"


PRICED = """
upstreams:
  simulator: {kind: simulator}
  away: {base_url: "http://127.0.0.1:1/v1", api_key: sk-canary-upstream}
models:
  - {match: "away", upstream: away}
  - {match: "*", upstream: simulator}
server: {drain_delay_s: 0}
prices:
  - {model: "sim-*", input_per_mtok_usd: 1000, output_per_mtok_usd: 1000}
  - {model: "away", input_per_mtok_usd: 1, output_per_mtok_usd: 1}
"""
