"""A client that costs little: raw sockets, keep-alive, a fixed request; prints what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop


class Client(asyncio.Protocol):
    """One connection; ``ask`` sends a request and waits for the end of its answer."""

    def connection_made(self, transport):
        self.transport = transport
        self.buffer = bytearray()
        self.done = None
        self.need = 0
        self.chunked = False
        self.first = None

    def connection_lost(self, exc):
        if self.done is not None and not self.done.done():
            self.done.set_exception(ConnectionError("closed"))

    def ask(self, request):
        self.done = asyncio.get_running_loop().create_future()
        self.need = 0
        self.chunked = False
        self.first = None
        self.transport.write(request)
        return self.done

    def data_received(self, data):
        self.buffer += data
        if not self.need and not self.chunked:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end]).lower()
            if not head.startswith(b"http/1.1 200"):
                self.done.set_exception(RuntimeError(bytes(self.buffer[:400]).decode("latin-1")))
                return
            at = head.find(b"content-length: ")
            if at >= 0:
                self.need = end + 4 + int(head[at + 16 :].split(b"\r\n", 1)[0])
            else:
                self.chunked = True
                del self.buffer[: end + 4]
        if self.chunked and self.first is None and len(self.buffer) > 8:
            self.first = time.perf_counter()
        if self.chunked:
            if self.buffer.endswith(b"0\r\n\r\n"):
                self.buffer.clear()
                self.done.set_result(None)
            elif len(self.buffer) > 4096:
                del self.buffer[:-16]
        elif len(self.buffer) >= self.need:
            self.buffer.clear()
            self.done.set_result(None)


NUMBER = b"########"
"""Where each request of ``cached: miss`` differs from every other."""


def request(plan: dict) -> bytes:
    """``cached``: ``pass`` (nothing may be kept), ``miss`` (each is asked once), ``hit`` (the same each time)."""
    cached = plan.get("cached", "pass")
    text = plan["text"] + (NUMBER.decode() if cached == "miss" else "")
    content = text + "x" * max(0, plan.get("size", 0) - len(text))
    temperature = 1 if cached == "pass" else 0
    body = json.dumps(
        {"model": "gpt-4.1", "input": content, "temperature": temperature, "store": False, "stream": plan["stream"]},
        separators=(",", ":"),
    ).encode()
    return (
        b"POST /v1/responses HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %s\r\n"
        b"content-type: application/json\r\naccept: application/json\r\nuser-agent: OpenAI/Python 3.52.0\r\n"
        b"x-stainless-lang: python\r\nx-stainless-package-version: 3.52.0\r\nx-stainless-retry-count: 0\r\n"
        b"content-length: %d\r\n\r\n" % (plan["key"].encode(), len(body))
    ) + body


async def connect(port: int) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def run(plan: dict) -> dict:
    clients = [await connect(plan["port"]) for _ in range(plan["connections"])]
    raw = request(plan)
    if plan.get("hold_s"):
        for client in clients:
            client.ask(raw)
        print("open", flush=True)
        await asyncio.sleep(plan["hold_s"])
        return {}
    left = plan["requests"]
    first = time.time_ns() // 10_000_000 % 90_000_000
    times: list[float] = []

    async def work(client):
        nonlocal left
        while left > 0:
            left -= 1
            start = time.perf_counter()
            await client.ask(raw.replace(NUMBER, b"%08d" % (first + left)))
            times.append(time.perf_counter() - start)

    began = time.perf_counter()
    await asyncio.gather(*(work(client) for client in clients))
    took = time.perf_counter() - began
    times.sort()
    return {
        "requests": len(times),
        "took_s": took,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[int(len(times) * 0.99)] * 1000,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.loads(sys.argv[1])))), flush=True)
