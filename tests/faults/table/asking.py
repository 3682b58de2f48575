"""How clients behave: those that wait for their answer, and those that do not."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from tests.faults.table.rows import Ask, Told

ANSWER_S_MAX = 30.0
LEAVES_S = 0.15

Address = tuple[str, str, Mapping[str, Any]]
"""The gateway's URL, the client's key, and the body of its request."""

PATHS = {"responses": "/v1/responses", "chat": "/v1/chat/completions", "embeddings": "/v1/embeddings"}


def waits(address: Address, ask: Ask) -> Told:
    url, key, body = address
    began_s = time.monotonic()
    headers = {"authorization": f"Bearer {key}"}
    try:
        target = url + PATHS[ask.family]
        with httpx.stream("POST", target, json=body, headers=headers, timeout=ANSWER_S_MAX) as answer:
            content = answer.read()
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return Told(None, took_s=time.monotonic() - began_s)
    return Told(answer.status_code, code_of(content), answer.headers, time.monotonic() - began_s)


def code_of(content: bytes) -> str | None:
    """The code of an error, also of one at the end of a stream."""
    if content.startswith(b"{"):
        error = json.loads(content).get("error")
        return None if error is None else str(error["code"])
    if chat := re.search(rb'data: (\{"error".*\})', content):
        return str(json.loads(chat[1])["error"]["message"].partition(":")[0])
    ending = re.search(rb"event: response\.failed\r?\ndata: (\{.*\})", content)
    if ending is None:
        return None
    return str(json.loads(ending[1])["response"]["error"]["message"].partition(":")[0])


def leaves_while_it_waits(address: Address, ask: Ask) -> Told:
    url, key, body = address
    try:
        httpx.post(f"{url}/v1/responses", json=body, headers={"authorization": f"Bearer {key}"}, timeout=LEAVES_S)
    except httpx.ReadTimeout:
        return Told(None)
    return Told(200)


def leaves_mid_stream(address: Address, ask: Ask) -> Told:
    url, key, body = address
    headers = {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{url}/v1/responses", json=body, headers=headers, timeout=ANSWER_S_MAX) as answer:
        next(answer.iter_raw())
    return Told(None)


def leaves_in_its_body(address: Address, ask: Ask) -> Told:
    with _begun(address, length=1000) as sock:
        sock.sendall(b'{"model": "gpt-4o", ')
        time.sleep(LEAVES_S)
    return Told(None)


def reads_nothing(address: Address, ask: Ask) -> Told:
    """Its connection stays, and takes no more than a few bytes."""
    raw = json.dumps(address[2]).encode()
    with _begun(address, length=len(raw), receive_bytes=4096) as sock:
        sock.sendall(raw)
        time.sleep(0.1)
        sock.settimeout(ANSWER_S_MAX)
        # Until it is cut off: the rest of what was on its way, and then the end.
        time.sleep(2.0)
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            return Told(None)
    return Told(None)


def sends(request: bytes) -> Callable[[Address, Ask], Told]:
    """Bytes as they are, whatever they mean; KEY stands for the client's own."""

    def send(address: Address, ask: Ask) -> Told:
        url, key, _ = address
        began_s = time.monotonic()
        with socket.create_connection(_place(url), timeout=ANSWER_S_MAX) as sock:
            sock.sendall(request.replace(b"KEY", key.encode()))
            received = b""
            try:
                while data := sock.recv(65536):
                    received += data
            except ConnectionError:
                pass
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        return Told(int(lines[0].split()[1]), code_of(body), headers, time.monotonic() - began_s)

    return send


def _begun(address: Address, *, length: int, receive_bytes: int | None = None) -> socket.socket:
    url, key, _ = address
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.connect(_place(url))
    head = f"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    sock.sendall(f"{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n".encode())
    return sock


def _place(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


HEAD = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer KEY\r\n"
JSON = HEAD + b"content-type: application/json\r\n"

WAYS: dict[str, Callable[[Address, Ask], Told]] = {
    "waits": waits,
    "leaves while it waits": leaves_while_it_waits,
    "leaves mid-stream": leaves_mid_stream,
    "leaves in its body": leaves_in_its_body,
    "reads nothing": reads_nothing,
    "sends no JSON": sends(JSON + b"connection: close\r\ncontent-length: 9\r\n\r\n{nonsense"),
    "sends no HTTP": sends(b"\x16\x03\x01 hello\r\n\r\n"),
    "sends a large body": sends(JSON + b"content-length: 5000000\r\n\r\n"),
    "sends a large head": sends(HEAD + b"x: " + b"a" * 200_000 + b"\r\n\r\n"),
    "sends a long target": sends(b"POST /v1/responses?" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"),
    "sends half a head": sends(b"POST /v1/responses HTTP/1.1\r\nhost: x\r\n"),
    "sends half a body": sends(JSON + b'content-length: 100\r\n\r\n{"model": '),
    "sends another type": sends(HEAD + b"connection: close\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}"),
}
