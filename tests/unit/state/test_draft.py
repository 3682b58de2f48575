"""What is kept of an answer, while it passes."""

from __future__ import annotations

import json

import pytest

from app.state import draft as drafting
from app.state.draft import Draft
from app.state.turn import Content, Keeping


class Site:
    """Whoever keeps; counts what is held."""

    def __init__(self, upstream="u", room=10_000):
        self.upstream, self.room = upstream, room
        self.held = 0
        self.kept = []

    def draft(self, given=b'{"q":1}'):
        return Draft(Keeping("t", given, frozenset({"u"})), lambda: self.upstream, self.keep, self.resize)

    def keep(self, keeping, upstream, response_id, response):
        self.kept.append((upstream, response_id, response))
        return True

    def resize(self, size):
        if self.held + size > self.room:
            return False
        self.held += size
        return True


def event(kind, **more):
    return json.dumps({"type": kind, **more}).encode()


def test_the_end_of_a_stream_is_kept_as_it_came():
    site = Site()
    draft = site.draft()
    draft.see_event(event("response.created", response={"id": "resp_1", "status": "in_progress"}))
    draft.see_event(event("response.output_item.done", item={"id": "a"}))
    assert site.kept == []
    draft.see_event(b'{"type":"response.completed","response":{"id":"resp_1", "n": 1.50,"output":[{"id":"a"}]}}')
    assert site.kept == [("u", "resp_1", b'{"id":"resp_1", "n": 1.50,"output":[{"id":"a"}]}')]
    assert draft.was_kept
    assert site.held == 0
    draft.see_event(event("response.completed", response={"id": "resp_2"}))
    assert len(site.kept) == 1


def test_items_of_the_stream_stand_in_for_those_its_end_does_not_tell():
    site = Site()
    draft = site.draft()
    draft.see_event(b'{"type":"response.output_item.done","item":{"id": "a"}}')
    draft.see_event(b'{"type":"response.incomplete","response":{"id":"resp_1","output":[]}}')
    assert site.kept == [("u", "resp_1", b'{"id":"resp_1","output":[{"id": "a"}]}')]


@pytest.mark.parametrize(
    ("status", "kept"), [("completed", 1), ("incomplete", 1), ("failed", 0), ("queued", 0), (None, 0)]
)
def test_only_what_has_come_to_an_answer_is_kept(status, kept):
    site = Site()
    draft = site.draft()
    draft.see_json(json.dumps({"id": "resp_1", "status": status}).encode())
    assert (len(site.kept), draft.was_kept) == (kept, bool(kept))


def test_a_failed_stream_a_text_that_looks_like_an_end_and_an_id_that_is_none():
    site = Site()
    draft = site.draft()
    draft.see_event(event("response.failed", response={"id": "resp_1"}))
    draft.see_event(event("response.output_text.delta", delta='{"type":"response.completed","response":{"id":"x"}}'))
    draft.see_event(b"[DONE]")
    draft.see_event(b'{"type":"response.completed"')
    assert not draft.is_over
    draft.see_event(event("response.completed", response={"id": "../x"}))
    assert site.kept == []
    assert draft.is_over


def test_an_upstream_that_keeps_it_itself():
    site = Site(upstream="other")
    draft = site.draft()
    assert not draft.is_of_upstream
    draft.see_json(b'{"id":"resp_1","status":"completed"}')
    assert site.kept == []


def test_what_there_is_no_room_for_is_not_kept_and_nothing_stays_held(monkeypatch):
    site = Site(room=100)
    draft = site.draft(b"x" * 60)
    # Until there is some of an answer, the body that it is of counts.
    assert site.held == 0
    draft.see_event(event("response.created", response={"id": "resp_1"}))
    assert site.held == 60
    draft.see_event(event("response.output_item.done", item={"id": "a" * 50}))
    assert draft.is_over
    assert site.held == 0
    draft.see_json(b'{"id":"resp_1","status":"completed"}')
    assert site.kept == []
    monkeypatch.setattr(drafting, "TURN_BYTES_MAX", 50)
    draft = Site().draft(b"x" * 51)
    draft.see_event(event("response.created", response={"id": "resp_1"}))
    assert draft.is_over
    site = Site()
    site.draft(b"x" * 20).see_json(b'{"id":"resp_1","status":"completed"}')
    assert site.kept == []


def test_given_up_it_lets_go():
    site = Site()
    draft = site.draft()
    draft.see_event(event("response.output_item.done", item={"id": "a"}))
    assert site.held > 0
    draft.close()
    draft.close()
    assert site.held == 0


def test_what_holds_nothing_any_more_has_no_copy_of_the_input():
    for draft in (Site().draft(), Site(room=3).draft(), Site(upstream="other").draft()):
        assert draft._keeping is not None
        draft.see_event(event("response.created", response={"id": "resp_1"}))
        draft.see_event(event("response.completed", response={"id": "resp_1"}))
        assert draft.is_over
        assert draft._keeping is None
    assert Site().draft().is_of_upstream


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b'{"id":"resp_1","output":[]}', 1),
        (b'{"id":"resp_1","status":null,"output":[{"id":"a"}]}', 1),
        (b'{"id":"resp_1","error":{}}', 0),
        (b'{"id":"resp_1","status":"queued","output":[]}', 0),
    ],
)
def test_an_answer_without_a_status_is_one_if_it_says_something(answer, kept):
    site = Site()
    site.draft().see_json(answer)
    assert len(site.kept) == kept


@pytest.mark.parametrize(
    "response", [b'{"id":"resp_1","a":1,"a":[2],"output":[]}', b'{"id":"resp_1","output":[],"output":[]}']
)
def test_an_end_into_which_its_items_cannot_be_put_is_not_kept_and_breaks_no_stream(response):
    site = Site()
    draft = site.draft()
    draft.see_event(event("response.output_item.done", item={"id": "a"}))
    draft.see_event(b'{"type":"response.completed","response":%b}' % response)
    assert (site.kept, draft.is_over, draft.was_kept, site.held) == ([], True, False, 0)


def test_nothing_of_a_conversation_is_in_what_is_printed():
    for each in (Keeping("t", b"secret", frozenset({"u"})), Content("t", "1", b"secret", b"secret")):
        assert "secret" not in repr(each)
        assert "secret" not in repr([each])
