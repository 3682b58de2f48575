"""What is held of a body, and where it ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.core.errors import BodyTooLarge, Overloaded, UnsupportedContentEncoding, UnsupportedMediaType
from app.core.exchange import BodyStream, ClientGone
from app.edge.body import PIECE_BYTES_MAX, BodyBudget, BodyReader, check_upload_media

FORM = (b"content-type", b"multipart/form-data; boundary=x")


class Sender:
    """A client that sends ``parts``; with ``leaves`` it goes before the end."""

    def __init__(self, *parts: bytes, length: int | None = None, leaves: bool = False) -> None:
        self.body_length = length
        self.uploads = 0
        self._parts = list(parts)
        self._leaves = leaves

    def expect_upload(self) -> None:
        self.uploads += 1

    async def receive(self) -> dict[str, object]:
        if not self._parts and self._leaves:
            return {"type": "http.disconnect"}
        part = self._parts.pop(0) if self._parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(self._parts) or self._leaves}


def reader_of(sender: Sender, budget: BodyBudget, upload_bytes_max: int = 10**9) -> BodyReader:
    return BodyReader(sender.receive, budget, sender, bytes_max=100, upload_bytes_max=upload_bytes_max)


async def pieces_of(body: BodyStream) -> list[bytes]:
    pieces = []
    while piece := await body.read():
        pieces.append(piece)
    assert await body.read() == b""
    return pieces


async def test_a_stream_is_handed_on_in_bounded_pieces_and_holds_what_is_left():
    budget = BodyBudget(10**6)
    sent = bytes(range(256)) * 1000
    sender = Sender(sent, b"", b"end", length=len(sent) + 3)
    reader = reader_of(sender, budget)
    body = reader.stream()
    assert (body.length, budget.held, sender.uploads) == (len(sent) + 3, 0, 0)
    first = await body.read()
    assert (len(first), budget.held, sender.uploads) == (PIECE_BYTES_MAX, len(sent), 1)
    pieces = await pieces_of(body)
    assert first + b"".join(pieces) == sent + b"end"
    assert max(map(len, pieces)) <= PIECE_BYTES_MAX
    assert budget.held == 0


async def test_an_empty_stream_ends_at_once():
    assert await pieces_of(reader_of(Sender(length=0), BodyBudget(0)).stream()) == []


async def test_a_client_that_leaves_half_way_is_no_end():
    budget = BodyBudget(100)
    reader = reader_of(Sender(b"half", leaves=True), budget)
    body = reader.stream()
    assert await body.read() == b"half"
    for _ in range(2):
        with pytest.raises(ClientGone):
            await body.read()
    reader.close()
    assert budget.held == 0


async def test_a_stream_beyond_its_bound_is_refused_as_it_comes():
    body = reader_of(Sender(b"x" * 60, b"x" * 60), BodyBudget(1000), upload_bytes_max=100).stream()
    assert len(await body.read()) == 60
    with pytest.raises(BodyTooLarge):
        await body.read()


async def test_a_full_budget_refuses_a_stream_before_its_first_piece_only():
    budget = BodyBudget(100)
    begun = reader_of(Sender(b"x" * 60, b"x" * 60), budget)
    body = begun.stream()
    await body.read()
    with pytest.raises(Overloaded):
        await reader_of(Sender(b"x" * 60), budget).stream().read()
    budget.take(40)
    assert len(await body.read()) == 60
    begun.close()
    assert budget.held == 40


@pytest.mark.parametrize(
    ("length", "streams", "fits"), [(100, False, True), (101, False, False), (101, True, True), (1001, True, False)]
)
def test_a_declared_length_is_checked_by_the_kind_of_body(length, streams, fits):
    reader = reader_of(Sender(length=length), BodyBudget(0), upload_bytes_max=1000)
    if fits:
        reader.check_length(streams=streams)
    else:
        with pytest.raises(BodyTooLarge):
            reader.check_length(streams=streams)


def test_a_chunked_body_is_not_checked_before_it_comes():
    reader = reader_of(Sender(length=None), BodyBudget(0))
    reader.check_length(streams=False)
    assert reader.stream().length is None


def test_an_upload_is_a_form_without_an_encoding():
    check_upload_media([FORM], is_form=True)
    check_upload_media([FORM, (b"content-encoding", b"identity")], is_form=True)
    with pytest.raises(UnsupportedContentEncoding):
        check_upload_media([FORM, (b"content-encoding", b"gzip")], is_form=True)
    with pytest.raises(UnsupportedMediaType):
        check_upload_media([(b"content-type", b"application/json")], is_form=True)


async def test_a_whole_body_is_bounded_by_its_own_bound():
    sender = SimpleNamespace(body_length=None, expect_upload=None)
    reader = BodyReader(Sender(b"x" * 101).receive, BodyBudget(1000), sender, bytes_max=100, upload_bytes_max=1000)
    with pytest.raises(BodyTooLarge):
        await reader.read()
