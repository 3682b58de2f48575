from __future__ import annotations

import hashlib
import io
import tracemalloc

import openai
import pytest

from app.core.clock import SystemClock
from app.simulator.app import Simulator
from app.simulator.errors import RequestRefused
from app.simulator.resources.blobs import MEMORY_BYTES_MAX, Blob
from app.simulator.resources.file_store import FileStore
from app.simulator.resources.multipart import FormParser
from app.simulator.server import running_simulator

MIB = 1024 * 1024


async def test_a_file_is_uploaded_listed_read_and_deleted(client):
    made = await client.files.create(file=("notes ü.txt", b"one\r\n--two\r\n"), purpose="user_data")
    assert (made.filename, made.bytes, made.purpose, made.object) == ("notes ü.txt", 12, "user_data", "file")
    assert made.id.startswith("file-") and made.status == "processed"
    assert await client.files.retrieve(made.id) == made
    assert (await client.files.content(made.id)).read() == b"one\r\n--two\r\n"
    other = await client.files.create(file=("b.jsonl", b"{}"), purpose="batch")
    assert other.id in [file.id async for file in client.files.list(purpose="batch")]
    assert made.id not in [file.id async for file in client.files.list(purpose="batch")]
    one = await client.files.list(limit=1)
    assert (one.data[0].id, one.has_more) == (other.id, True)
    assert (await client.files.delete(made.id)).deleted
    for call in (client.files.retrieve(made.id), client.files.content(made.id), client.files.delete(made.id)):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            await call


@pytest.mark.parametrize("size", [0, 1, MEMORY_BYTES_MAX, 5 * MIB + 3])
async def test_every_byte_comes_back(client, size):
    data = bytes(hashlib.shake_256(b"seed").digest(size))
    made = await client.files.create(file=("data.bin", data), purpose="user_data")
    assert made.bytes == size
    answer = await client.files.with_raw_response.content(made.id)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(size)
    assert answer.content == data


async def test_a_large_file_does_not_stand_in_memory():
    simulator = Simulator()
    async with running_simulator(simulator, port=0) as at:
        client = openai.AsyncOpenAI(base_url=f"{at.base_url}/v1", api_key="none", max_retries=0)
        async with client:
            made = await client.files.create(file=("large.bin", io.BytesIO(b"x" * (48 * MIB))), purpose="user_data")
            assert made.bytes == 48 * MIB
            tracemalloc.start()
            try:
                async with client.files.with_streaming_response.content(made.id) as answer:
                    size = 0
                    async for piece in answer.iter_bytes():
                        size += len(piece)
                assert size == 48 * MIB
                assert tracemalloc.get_traced_memory()[1] < 8 * MIB
            finally:
                tracemalloc.stop()
    assert "files=0" in repr(simulator.kept.files)


async def test_a_file_of_any_size_is_there_without_an_upload(client):
    assert (await client.files.retrieve("file-bytes-1000003")).bytes == 1_000_003
    data = (await client.files.content("file-bytes-1000003")).read()
    assert data == (bytes(range(256)) * 3907)[:1_000_003]


@pytest.mark.parametrize("name", ["file-bytes-", "file-bytes-x", "file-bytes-99999999999999999"])
async def test_other_names_are_not(caller, name):
    assert (await caller.get(f"/v1/files/{name}")).status == 404


async def test_an_upload_comes_in_parts(client):
    upload = await client.uploads.create(filename="a.txt", purpose="user_data", bytes=6, mime_type="text/plain")
    assert (upload.status, upload.object) == ("pending", "upload")
    second = await client.uploads.parts.create(upload.id, data=b"def")
    first = await client.uploads.parts.create(upload.id, data=b"abc")
    with pytest.raises(openai.BadRequestError):
        await client.uploads.parts.create(upload.id, data=b"g")
    with pytest.raises(openai.BadRequestError):
        await client.uploads.complete(upload.id, part_ids=[first.id])
    done = await client.uploads.complete(upload.id, part_ids=[first.id, second.id])
    assert (done.status, done.file.bytes) == ("completed", 6)
    assert (await client.files.content(done.file.id)).read() == b"abcdef"
    with pytest.raises(openai.BadRequestError):
        await client.uploads.cancel(upload.id)
    other = await client.uploads.create(filename="b", purpose="batch", bytes=1, mime_type="text/plain")
    assert (await client.uploads.cancel(other.id)).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        await client.uploads.complete("upload_unknown", part_ids=[])


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "multipart/form-data"}, b""),
        ({"content-type": "application/json"}, b"{}"),
        ({"content-type": "multipart/form-data; boundary=b"}, b"--b\r\nno end"),
        ({"content-type": "multipart/form-data; boundary=b"}, b"--b\r\n\r\nx\r\n--b--\r\n"),
        ({"content-type": "multipart/form-data; boundary=b"}, b"--b--\r\n"),
        (
            {"content-type": "multipart/form-data; boundary=b"},
            b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfun\r\n--b--\r\n',
        ),
        (
            {"content-type": "multipart/form-data; boundary=b"},
            b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n',
        ),
    ],
)
async def test_forms_that_make_no_sense_are_refused(caller, headers, body):
    reply = await caller.post("/v1/files", body, headers)
    assert reply.status == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="a[]"\r\n\r\nvalue\r\n'
    b'--b\r\nContent-Disposition: form-data; name="empty"\r\n\r\n\r\n'
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.bin"\r\nContent-Type: text/plain\r\n\r\n'
    b"one\r\n--bee\r\n--\r\ntwo\r\n--b--\r\nepilogue"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_form_is_read_however_it_is_cut(size):
    parser = FormParser(b'multipart/form-data; boundary="b"')
    # "--bee" begins like a delimiter.
    data = FORM.replace(b"--bee", b"--xee")
    for start in range(0, len(data), size):
        parser.feed(data[start : start + size])
    form = parser.close()
    assert form.fields == {"a": "value", "empty": ""}
    file = form.file("f")
    assert (file.filename, file.content_type) == ("x.bin", "text/plain")
    assert file.blob.read(0, 100) == b"one\r\n--xee\r\n--\r\ntwo"


def test_what_is_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("app.simulator.resources.blobs.BLOB_BYTES_MAX", 10)
    monkeypatch.setattr("app.simulator.resources.multipart.FIELD_BYTES_MAX", 10)
    head = b'--b\r\ncontent-disposition: form-data; name="x"%b\r\n\r\n'
    for more, status in [(b"", 400), (b'; filename="y"', 413)]:
        with pytest.raises(RequestRefused) as caught:
            FormParser(b"multipart/form-data; boundary=b").feed(head % more + b"x" * 30)
        assert caught.value.status == status


def test_files_are_bounded_and_closed_after_their_last_reader():
    store = FileStore(SystemClock(), files_max=2, bytes_max=100)
    blobs = [Blob.of(b"x" * 40) for _ in range(4)]
    first = store.keep(blobs[0], "a", "batch")
    blobs[0].hold()
    for blob in blobs[1:]:
        store.keep(blob, "b", "batch")
    assert len(store.shown()) == 2 and "bytes=80/100" in repr(store)
    with pytest.raises(RequestRefused):
        store.find(first["id"])
    assert blobs[0].read(0, 3) == b"xxx"
    blobs[0].release()
    with pytest.raises(ValueError, match="closed"):
        blobs[0].read(0, 3)
    store.close()
    assert "files=0/2, bytes=0/100" in repr(store)
