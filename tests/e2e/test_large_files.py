"""Files go up and come down at a bounded memory, whatever their size: the gateway's own grows by at most 32 MiB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.e2e.test_background import simulator
from tests.fakes.gateway import RunningGateway

MIB = 1024 * 1024
GROWS_BY_MAX = 32 * MIB
BOUNDARY = "a-boundary"
HEAD = (
    f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="large.bin"\r\n'
    "content-type: application/octet-stream\r\n\r\n"
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
BLOCK = bytes(range(256)) * 256


def form(size: int) -> Iterator[bytes]:
    yield HEAD
    for _ in range(size // len(BLOCK)):
        yield BLOCK
    yield TAIL


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with simulator() as base_url:
        config = f"""
upstreams:
  provider: {{base_url: "{base_url}"}}
models: [{{match: "*", upstream: provider}}]
server: {{drain_delay_s: 0}}
"""
        with RunningGateway(tmp_path_factory.mktemp("large"), config) as gateway:
            yield gateway


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("mebibytes", [64, pytest.param(512, marks=pytest.mark.long)])
def test_up_and_down(gateway, mebibytes, declared):
    name = f"files {mebibytes} {declared}"
    key = gateway.json("keys", "create", "--team", "default", "--name", name, "--endpoints", "files")["key"]
    size = mebibytes * MIB
    headers = {"authorization": f"Bearer {key}", "content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    if declared:
        headers["content-length"] = str(len(HEAD) + size + len(TAIL))
    process = psutil.Process(gateway.process.pid)
    most = before = process.memory_info().rss
    with httpx.Client(base_url=gateway.base_url, timeout=300) as client:

        def watched() -> Iterator[bytes]:
            nonlocal most
            for number, piece in enumerate(form(size)):
                if number % 64 == 0:
                    most = max(most, process.memory_info().rss)
                yield piece

        made = client.post("/files", content=watched(), headers=headers)
        assert made.status_code == 200, made.text
        assert made.json()["bytes"] == size
        digest, came = hashlib.sha256(), 0
        own = {"authorization": f"Bearer {key}"}
        with client.stream("GET", f"/files/{made.json()['id']}/content", headers=own) as answer:
            assert answer.status_code == 200
            for piece in answer.iter_bytes():
                digest.update(piece)
                came += len(piece)
                if came % (64 * len(BLOCK)) < len(piece):
                    most = max(most, process.memory_info().rss)
        other = client.get(f"/files/{made.json()['id']}/content", headers=gateway.headers)
        assert other.status_code == 403
        client.delete(f"/files/{made.json()['id']}", headers=own)
    assert came == size
    expected = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        expected.update(BLOCK)
    assert digest.digest() == expected.digest()
    assert most - before <= GROWS_BY_MAX, f"{(most - before) / MIB:.0f} MiB"
