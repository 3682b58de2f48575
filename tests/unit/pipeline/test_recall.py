"""The plan of a request that was asked before, and nobody else's."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from app.cache.entry import Address
from app.cache.inquiry import Inquiry
from app.core.identity import Principal
from app.pipeline import recall
from app.pipeline.plan import Plan
from app.pipeline.recall import OVERHEAD_BYTES, Recall

KEPT = Inquiry("", "deterministic", Address(b"d" * 32, "json"), looks=True, keeps=True, joins=True)
BODY = b'{"model":"m","input":"hi","temperature":0,"store":false}'


def principal() -> Principal:
    return Principal("t", "team", "k", "key", "s", (), ())


def exchange(path="/responses", query=b"", headers=()):
    return SimpleNamespace(endpoint=SimpleNamespace(path=path), query=query, headers=list(headers))


def plan(body=BODY, inquiry=KEPT):
    return Plan("ask", body, ("route",), inquiry, len(body))


def kept(one, asked, who, body=BODY, **more):
    key, known = one.find(asked, who, body)
    assert known is None
    one.keep(key, plan(body, **more))


def test_the_same_bytes_of_the_same_key_have_the_same_plan_with_a_body_of_its_own():
    one, who = Recall(frozenset()), principal()
    kept(one, exchange(), who)
    for _ in range(2):
        _, known = one.find(exchange(headers=[(b"user-agent", b"x")]), who, bytes(bytearray(BODY)))
        assert known is not None
        assert (known.ask, known.routes, known.inquiry) == ("ask", ("route",), KEPT)
        assert known.take_body() == BODY
    assert known.body == b""


def test_a_request_of_which_something_is_to_be_kept_is_planned_anew():
    one, who = Recall(frozenset()), principal()
    key, _ = one.find(exchange(), who, BODY)
    one.keep(key, msgspec.structs.replace(plan(), keeping="something"))
    assert one.find(exchange(), who, BODY)[1] is None


@pytest.mark.parametrize(
    ("asked", "who", "body"),
    [
        (exchange(), principal(), BODY),
        (exchange("/chat/completions"), None, BODY),
        (exchange(query=b"beta=true"), None, BODY),
        (exchange(), None, BODY + b" "),
        (exchange(headers=[(b"x-headgate-cache", b"off")]), None, BODY),
        (exchange(headers=[(b"cache-control", b"no-store")]), None, BODY),
        (exchange(headers=[(b"idempotency-key", b"1")]), None, BODY),
        (exchange(headers=[(b"openai-beta", b"1")]), None, BODY),
        (exchange(headers=[(b"x-own", b"1")]), None, BODY),
    ],
    ids=["key", "path", "query", "body", "wish", "control", "idempotency", "beta", "forwarded"],
)
def test_whatever_a_plan_depends_on_makes_another_request(asked, who, body):
    one, first = Recall(frozenset((b"x-own",))), principal()
    kept(one, exchange(), first)
    assert one.find(asked, who or first, body)[1] is None
    assert one.find(exchange(), first, BODY)[1] is not None


@pytest.mark.parametrize(
    "inquiry",
    [Inquiry("temperature"), msgspec.structs.replace(KEPT, request_digest=b"1")],
    ids=["passed by", "idempotent"],
)
def test_what_the_cache_does_not_answer_is_not_kept(inquiry):
    one, who = Recall(frozenset()), principal()
    kept(one, exchange(), who, inquiry=inquiry)
    assert one.find(exchange(), who, BODY)[1] is None


def test_large_bodies_are_not_kept():
    one, who = Recall(frozenset()), principal()
    large = b"x" * (recall.BODY_BYTES_MAX + 1)
    kept(one, exchange(), who, large)
    assert one.find(exchange(), who, large)[1] is None


def test_what_was_asked_for_longest_ago_goes_first(monkeypatch):
    monkeypatch.setattr(recall, "BODIES_BYTES_MAX", 3 * (OVERHEAD_BYTES + 1))
    one, who = Recall(frozenset()), principal()
    for body in (b"1", b"2", b"3"):
        kept(one, exchange(), who, body)
    assert one.find(exchange(), who, b"1")[1] is not None
    kept(one, exchange(), who, b"4")
    known = [body for body in (b"1", b"2", b"3", b"4") if one.find(exchange(), who, body)[1] is not None]
    assert known == [b"1", b"3", b"4"]
