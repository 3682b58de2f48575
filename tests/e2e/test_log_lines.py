"""A log line is one line, and its fields are ours, whatever people and clients call things."""

from __future__ import annotations

import json
import re
import socket

import httpx
import pytest

from tests.e2e.admin.people import Admin
from tests.fakes.gateway import SIMULATED, RunningGateway

FORGED = 'x\n{"event":"forged","level":"error"}\r\nforged event="forged"'
SEPARATORS = ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1b[2K", "\x85", "\x9b2K", "\u2028", "\u2029", "\0")
PRINTABLE = r"""x" event="forged" level="error" {"event":"forged"} \" \n event=forged"""
LINE = re.compile(
    rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:info|warning|error) +[a-z_]+(?: [a-z0-9_]+=(?:\"(?:[^\"\\]|\\.)*\"|[^ \"]+))* ?"
)
CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


def provoke(gateway: RunningGateway) -> None:
    """Every text that a line could hold, or that somebody might think it does."""
    admin = Admin(gateway)
    team = admin.team(PRINTABLE)
    key = admin.key(team, PRINTABLE)["key"]
    for name in (FORGED, *(f"a{each}b" for each in SEPARATORS)):
        for path, body in (
            ("/teams", {"name": name}),
            ("/keys", {"team_id": team["id"], "name": name}),
            ("/tokens", {"name": name, "role": "viewer"}),
            ("/alerts", {"kind": "model.unpriced", "name": name}),
            ("/prices", {"model": name, "input_per_mtok_usd": "1", "output_per_mtok_usd": "1"}),
        ):
            admin.request("POST", path, json=body)
        admin.request("GET", "/records", params={"q": name})
    admin.close()
    with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=30) as client:
        for name in (PRINTABLE, FORGED, *(f"a{each}b" for each in SEPARATORS)):
            body = {"model": name, "input": name, "user": name, "safety_identifier": name, name: name}
            client.post("/v1/responses", json=body)
            client.post("/v1/responses", json={"model": "sim-mini", "input": "x", "user": name})
            client.get("/v1/models", params={name: name})
            client.post("/admin/api/v1/session", json={"credential": name})
            client.get("/v1/" + "".join(f"%{byte:02x}" for byte in name.encode()))
    httpx.post(f"{gateway.base_url}/responses", headers={"authorization": f"Bearer {PRINTABLE}"}, timeout=30)
    _raw(gateway, b"GET /v1/models\nforged HTTP/1.1\r\nhost: x\r\n\r\n")
    _raw(gateway, b"GET / HTTP/1.1\r\nhost: x\r\nx-headgate-tags: a=b\x0bforged\r\nuser-agent: x\x85forged\r\n\r\n")


def _raw(gateway: RunningGateway, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@pytest.fixture(scope="module", params=["json", "text"])
def written(request, tmp_path_factory) -> tuple[str, bytes]:
    """The style, and all that the gateway wrote."""
    folder = tmp_path_factory.mktemp("log")
    with RunningGateway(folder, SIMULATED, HEADGATE_LOG_FORMAT=request.param) as gateway:
        provoke(gateway)
    return request.param, gateway.log_path.read_bytes()


def test_no_name_makes_a_line_or_a_field(written):
    style, log = written
    lines = log.removesuffix(b"\n").split(b"\n")
    assert len(lines) > 40
    for line in lines:
        assert CONTROL.search(line) is None, line
        if style == "json":
            pairs = json.loads(line, object_pairs_hook=list)
            names = [name for name, _ in pairs]
            assert names[:3] == ["at", "level", "event"]
            assert len(set(names)) == len(names)
            assert dict(pairs)["event"] != "forged"
        else:
            assert LINE.fullmatch(line), line
            assert line.split()[2] != b"forged"


def test_what_is_not_asked_for_is_not_in_it(written):
    """A client's own text stands in no line but where it is the name of a team or a model."""
    style, log = written
    for line in log.splitlines():
        if style == "json" and b"forged" in line:
            said = {name for name, value in json.loads(line).items() if "forged" in str(value)}
            assert said <= {"team", "model"}
