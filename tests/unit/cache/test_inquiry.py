"""Where an answer would be, and what may be done with it: by mode, wish and request."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from app.cache.entry import JSON_FORM, STREAM_FORM
from app.cache.inquiry import IDEMPOTENCY_FORM, Inquiry, inquire
from app.core.errors import Headers, InvalidRequest
from tests.unit.cache.asking import ROUTES, SECRET, asked, policy, principal, whole

DAY_S = 86_400.0
REQUESTS = {
    "same": whole("responses"),
    "other": whole("responses", temperature=1),
    "stored": whole("responses", store=True),
    "hosted": whole("responses", tools=[{"type": "web_search"}]),
}
# What is done: L looks, K keeps, J joins, S only measures; else the reason why nothing is.
EXPECTED = """
mode           header   same     other        stored   hosted
off            -        off      off          off      off
off            on       off      off          off      off
off            off      off      off          off      off
off            refresh  off      off          off      off
shadow         -        LKS      LKS          LKS      hosted_tool
shadow         on       LKS      LKS          LKS      hosted_tool
shadow         off      request  request      request  request
shadow         refresh  KS       KS           KS       hosted_tool
deterministic  -        LKJ      temperature  store    hosted_tool
deterministic  on       LKJ      LKJ          LKJ      hosted_tool
deterministic  off      request  request      request  request
deterministic  refresh  K        temperature  store    hosted_tool
all            -        LKJ      LKJ          LKJ      hosted_tool
all            on       LKJ      LKJ          LKJ      hosted_tool
all            off      request  request      request  request
all            refresh  K        K            K        hosted_tool
"""
HEAD, *ROWS = [line.split() for line in EXPECTED.split("\n") if line]
CELLS = [(*row[:2], name, done) for row in ROWS for name, done in zip(HEAD[2:], row[2:], strict=True)]


def ours(word: str) -> Headers:
    return [] if word == "-" else [(b"x-headgate-cache", word.encode())]


def inquiry(body: dict[str, Any] | bytes, told: Any = None, **fields: Any) -> Inquiry:
    return inquire(asked(body, **fields), told or policy(), SECRET, idempotency_ttl_s=DAY_S)


def done_of(found: Inquiry) -> str:
    steps = {"L": found.looks, "K": found.keeps, "J": found.joins, "S": found.shadow}
    return "".join(step for step, does in steps.items() if does)


@pytest.mark.parametrize(("mode", "header", "request_name", "done"), CELLS)
def test_what_is_done(mode, header, request_name, done):
    for whose in ("file", "model", "key"):
        told = policy(mode if whose == "file" else "off" if mode != "off" else "all", model=None)
        if whose == "model":
            told = msgspec.structs.replace(told, mode=mode)
        who = principal(cache=mode if whose == "key" else None)
        found = inquiry(REQUESTS[request_name], told, who=who, headers=ours(header))
        if set(done) <= set("LKJS"):
            assert done_of(found) == done
            assert found.address is not None
            assert found.reason == ("shadow" if mode == "shadow" else "refresh" if header == "refresh" else "")
            assert found.nature == ("deterministic" if request_name == "same" else "repeatable")
            assert (found.ttl_s, found.age_s_max, found.only_if_cached) == (60, None, False)
        else:
            assert found.address is None
            assert done_of(found) == ""
            assert found.reason == done.replace("_", " ")


def test_off_on_key_or_model_holds_whatever_else_is_said():
    for told, who in [
        (policy("all", model="off"), principal(cache="all")),
        (policy("all", model="all"), principal(cache="off")),
    ]:
        found = inquiry(REQUESTS["same"], told, who=who, headers=ours("on"))
        assert (found.reason, found.address) == ("off", None)


def test_a_request_without_a_temperature_is_told_apart_by_one_look():
    body = {name: value for name, value in whole("responses").items() if name != "temperature"}
    assert inquiry(body).reason == "temperature"
    # The short way is no other way: asked at length, the answer is the same.
    assert inquiry(body, headers=[(b"cache-control", b"max-age=5")]).reason == "temperature"
    assert inquiry(whole("embeddings"), family="embeddings").reason == ""


@pytest.mark.parametrize("mode", ["off", "shadow", "deterministic", "all"])
@pytest.mark.parametrize("header", ["off", "on", "refresh", "-"])
@pytest.mark.parametrize("request_name", REQUESTS)
def test_what_is_passed_by_is_not_looked_up_at_all(mode, header, request_name):
    def sources() -> Any:
        calls.append("asked")
        return ROUTES, frozenset()

    calls: list[str] = []
    found = inquiry(REQUESTS[request_name], policy(mode), headers=ours(header), sources=sources)
    assert len(calls) == (found.address is not None)


# -- wishes ---------------------------------------------------------------------------------------


def control(value: bytes) -> Headers:
    return [(b"cache-control", value)]


def test_wishes_about_age_are_handed_on():
    found = inquiry(whole("responses"), headers=control(b"max-age=5, only-if-cached"))
    assert (found.age_s_max, found.only_if_cached, done_of(found)) == (5.0, True, "LKJ")
    assert inquiry(whole("responses"), headers=control(b"max-age=x")).age_s_max == 0.0


@pytest.mark.parametrize(
    ("told", "body", "also"),
    [
        (policy("off"), whole("responses"), b""),
        (policy(), whole("responses", temperature=1), b""),
        (policy(), whole("responses", tools=[{"type": "mcp"}]), b""),
        (policy("all", "global"), whole("responses", store=True), b""),
        (policy(), whole("responses"), b", no-store"),
    ],
)
def test_only_if_cached_is_known_where_nothing_may_be_cached(told, body, also):
    found = inquiry(body, told, headers=control(b"only-if-cached" + also))
    assert (found.address, found.only_if_cached) == (None, True)


def test_shadow_answers_nobody():
    found = inquiry(whole("responses"), policy("shadow"), headers=control(b"only-if-cached"))
    assert (found.shadow, found.joins, found.only_if_cached) == (True, False, True)


def test_options_of_a_stream_that_is_none_are_for_the_provider_to_refuse():
    for stream in (False, None):
        found = inquiry(whole("responses", stream=stream, stream_options={"include_obfuscation": False}))
        assert (found.address, found.reason) == (None, "stream_options")


def test_an_idempotency_key_is_not_kept_where_nothing_may_be():
    found = inquiry(whole("responses"), headers=[(b"idempotency-key", b"k"), *control(b"no-store")])
    assert (found.address, found.reason) == (None, "request")


@pytest.mark.parametrize("headers", [ours("maybe"), [(b"idempotency-key", b"")], [(b"idempotency-key", b"a\xff")]])
def test_a_wish_that_cannot_be_understood_is_refused_in_any_mode(headers):
    for mode in ("off", "deterministic"):
        with pytest.raises(InvalidRequest):
            inquiry(whole("responses"), policy(mode), headers=headers)


# -- whose it is ----------------------------------------------------------------------------------

WHO = {
    "one": principal("key_1", "team_1"),
    "its neighbour": principal("key_2", "team_1"),
    "a stranger": principal("key_3", "team_2"),
    "of a team that is called as a key": principal("team_1", "key_1"),
}


@pytest.mark.parametrize(
    ("scope", "groups"),
    [
        ("key", [{"one"}, {"its neighbour"}, {"a stranger"}, {"of a team that is called as a key"}]),
        ("team", [{"one", "its neighbour"}, {"a stranger"}, {"of a team that is called as a key"}]),
        ("global", [set(WHO)]),
    ],
)
def test_who_shares_an_address(scope, groups):
    addresses = {name: inquiry(whole("responses"), policy("all", scope), who=who).address for name, who in WHO.items()}
    assert None not in addresses.values()
    for one, other in itertools.combinations(WHO, 2):
        together = any({one, other} <= group for group in groups)
        assert (addresses[one] == addresses[other]) == together, (one, other)


def test_scopes_and_shadow_never_meet():
    # A team and a key of one name are not the same, nor either of them everybody.
    for name in ("x", "global"):
        who = principal(name, name)
        told = [policy(mode, scope) for mode in ("all", "shadow") for scope in ("key", "team", "global")]
        addresses = {inquiry(whole("responses"), one, who=who).address for one in told}
        assert len(addresses) == len(told)


def test_the_mode_has_no_part_in_the_address():
    addresses = {
        inquiry(whole("responses"), policy(mode), headers=ours(header)).address
        for mode in ("deterministic", "all")
        for header in ("-", "on", "refresh")
    }
    assert len(addresses) == 1


@pytest.mark.parametrize("family", ["responses", "chat"])
@pytest.mark.parametrize("mode", ["shadow", "deterministic", "all"])
@pytest.mark.parametrize("header", ["-", "on", "refresh"])
def test_what_the_provider_stores_is_shared_with_no_other_team(family, mode, header):
    def at(scope: str, **members: Any) -> Inquiry:
        return inquiry(whole(family, **members), policy(mode, scope), family=family, headers=ours(header))

    found = at("global", store=True)
    assert (found.address, found.reason) == (None, "store")
    assert at("global", store=False).address is not None
    if mode != "deterministic" or header == "on":
        assert at("team", store=True).address is not None


# -- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "members", "form", "also"),
    [
        ("responses", {}, JSON_FORM, ""),
        ("responses", {"stream": False}, JSON_FORM, ""),
        ("responses", {"stream": True}, STREAM_FORM, JSON_FORM),
        ("responses", {"stream": True, "stream_options": None}, STREAM_FORM, JSON_FORM),
        ("responses", {"stream": True, "stream_options": {"include_obfuscation": False}}, None, JSON_FORM),
        ("chat", {"stream": True}, STREAM_FORM, ""),
        ("chat", {"stream": True, "stream_options": {"include_usage": True}}, None, ""),
        ("embeddings", {"stream": True}, JSON_FORM, ""),
    ],
)
def test_a_request_is_told_its_form_and_which_other_would_do(family, members, form, also):
    found = inquiry(whole(family, **members), family=family)
    plain = inquiry(whole(family), family=family)
    assert found.address is not None
    assert plain.address is not None
    assert found.address.digest == plain.address.digest, "both forms are one entry"
    assert found.also == also
    if form is None:
        assert found.address.form.startswith(f"{STREAM_FORM}.")
    else:
        assert found.address.form == form


def test_streams_with_other_options_are_kept_apart():
    told: list[Any] = [None, {"include_usage": True}, {"include_usage": False}, {}]
    found = [inquiry(whole("chat", stream=True, stream_options=one), family="chat") for one in told]
    assert len({one.address for one in found}) == len(told)


# -- Idempotency-Key ------------------------------------------------------------------------------


def once(body: dict[str, Any] | bytes, key: bytes = b"k", *headers: tuple[bytes, bytes], **fields: Any) -> Inquiry:
    told = fields.pop("told", None)
    return inquiry(body, told, headers=[(b"idempotency-key", key), *headers], **fields)


@pytest.mark.parametrize("mode", ["off", "shadow", "deterministic", "all"])
@pytest.mark.parametrize("request_name", REQUESTS)
def test_an_idempotency_key_holds_for_any_request_in_any_mode(mode, request_name):
    found = once(REQUESTS[request_name], told=policy(mode))
    assert (done_of(found), found.also, found.ttl_s) == ("LK", "", DAY_S)
    assert found.address is not None
    assert (found.address.form, len(found.address.digest), len(found.request_digest)) == (IDEMPOTENCY_FORM, 32, 32)


def test_an_idempotency_key_is_of_one_gateway_key_and_endpoint():
    places = [
        once(whole("responses")),
        once(whole("responses"), b"K"),
        once(whole("responses"), who=principal("key_2")),
        once(whole("chat"), family="chat"),
        # Not what stands beside it in the digest, with another border.
        once(whole("responses"), b"1k", who=principal("key_")),
    ]
    assert len({one.address for one in places}) == len(places)
    # Whatever is asked with it, it is the same key.
    same = [
        once(whole("responses", input="other")),
        once(whole("responses"), b" k "),
        once(whole("responses"), query=b"a=1"),
        once(whole("responses"), who=principal("key_1", "team_2")),
        once(whole("responses"), told=policy("all", "global")),
    ]
    assert {one.address for one in same} == {places[0].address}


def test_the_request_of_an_idempotency_key_is_its_very_bytes():
    body = msgspec.json.encode(whole("responses"))
    bodies = [body, body + b" ", body.replace(b"hello", b"hallo"), msgspec.json.encode(whole("responses", stream=True))]
    digests = [*(once(one).request_digest for one in bodies), once(body, query=b"a=1").request_digest]
    assert len(set(digests)) == len(digests)
    assert once(body).request_digest == once(body, b"other", who=principal("key_2")).request_digest
    moved = once(b'{"model":"m"}', query=b"a "), once(b' {"model":"m"}', query=b"a")
    assert moved[0].request_digest != moved[1].request_digest


def test_an_idempotency_key_never_meets_an_answer_of_the_cache():
    addresses = {once(whole("responses")).address, inquiry(whole("responses")).address}
    digests = {one.digest for one in addresses if one is not None}
    assert len(digests) == 2
    other_secret = inquire(
        asked(whole("responses"), headers=[(b"idempotency-key", b"k")]), policy(), bytes(32), idempotency_ttl_s=1
    )
    assert other_secret.address not in addresses
    assert other_secret.request_digest != once(whole("responses")).request_digest
