"""Two requests share a digest if and only if nothing in which they differ could change an answer."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.cache.fingerprint import DIGEST_BYTES, canonical, digest_of, is_zero, keeps_state, nature_of, stream_form
from app.core.codec import parse_object
from app.core.errors import GatewayError
from app.core.peek import peek
from tests.unit.cache.asking import ENDPOINTS, ROUTES, SECRET, whole
from tests.unit.cache.spelling import BODIES, LEFT_OUT, NUMBERS, Number, changed, meaning, spelled

FAMILIES = ("responses", "chat", "embeddings")

# -- the digest: bodies ---------------------------------------------------------------------------


def digest(body: bytes | dict[str, Any], family: str = "responses", **fields: Any) -> bytes:
    told: dict[str, Any] = {
        "scope": "team team_1",
        "endpoint": ENDPOINTS[family],
        "query": b"",
        "headers": [],
        "forwarded": frozenset(),
        "routes": ROUTES,
        "body": parse_object(body if isinstance(body, bytes) else msgspec.json.encode(body)),
    }
    secret = fields.pop("secret", SECRET)
    return digest_of(secret, **(told | fields))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FAMILIES), BODIES, st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_members_and_spacing_do_not_count(family, body, loosely, other_loosely, dice):
    one, other = (spelled(body, dice, loosely=how).encode() for how in (loosely, other_loosely))
    assert digest(one, family) == digest(other, family)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FAMILIES), BODIES, st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_digests_are_equal_if_and_only_if_bodies_mean_the_same(family, body, changes, loosely, dice):
    other: Any = body
    for _ in range(changes):
        other = changed(other, dice) if isinstance(other, dict) else body
    kept, other_kept = (
        {name: value for name, value in one.items() if name not in LEFT_OUT[family]} for one in (body, other)
    )
    digests = [digest(spelled(one, dice, loosely=loosely).encode(), family) for one in (body, other)]
    assert (digests[0] == digests[1]) == (meaning(kept) == meaning(other_kept))


def test_numbers_are_told_apart_by_value_however_the_rest_is_spelled():
    for spaces in ("", " "):
        digests = {text: digest(f'{{"a":{spaces}{text}}}'.encode()) for text in NUMBERS}
        # Only minus nought is nought.
        assert len(set(digests.values())) == len(NUMBERS) - 1
        assert digests[Number("-0")] == digests[Number("0")]
        assert digests[Number("0.1")] == digest(b'{"a":0.1}')
        assert digests[Number("18446744073709551617")] == digest(b'{"a":18446744073709551617}')


def test_null_is_not_absent_and_false_is_not_zero():
    told = [{}, {"a": None}, {"a": False}, {"a": 0}, {"a": ""}, {"a": []}, {"a": {}}, {"a": "null"}, {"b": None}]
    assert len({digest(body) for body in told}) == len(told)


@pytest.mark.parametrize("spaces", ["", " "])
def test_every_spelling_of_temperature_zero_is_one(spaces):
    def at(temperature: str) -> bytes:
        return digest(f'{{"temperature":{spaces}{temperature}}}'.encode())

    zeros = ["0", "0.0", "-0.0", "-0", "0e5", "0E-3", "0.000", "-0.0e1"]
    assert {at(zero) for zero in zeros} == {at("0")}
    others = ["1e-300", "false", '"0"', "null", "[]", "1", "0.1"]
    assert len({at(text) for text in ["0", *others]} | {digest(b"{}")}) == len(others) + 2
    # Elsewhere it is a number as any other.
    assert digest(b'{"a":{"temperature":0}}') != digest(b'{"a":{"temperature":0.0}}')


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", sorted(LEFT_OUT["chat"]))
@pytest.mark.parametrize("value", [True, None, {"include_usage": True}, "somebody"])
def test_what_is_left_out_is_what_the_answer_does_not_echo(family, name, value):
    same = digest(whole(family, **{name: value}), family) == digest(whole(family), family)
    assert same == (name in LEFT_OUT[family])
    # Only at the top.
    nested, bare = whole(family, a={name: value}), whole(family, a={})
    assert digest(nested, family) != digest(bare, family)


def test_the_canonical_form_is_the_body_sorted():
    body = parse_object(b'{"stream": true, "b": [{"d": 1.50, "c": 2}], "a": 1e2, "temperature": 0.0}')
    assert canonical("responses", body) == b'{"a":1e2,"b":[{"c":2,"d":1.50}],"temperature":0}'
    assert body.value["stream"] is True, "the body itself is left as it is"


# -- the digest: all else -------------------------------------------------------------------------

FORWARDED = frozenset({b"x-a", b"x-ab", b"x-version"})


def test_each_part_counts():
    other_route = ("azure", "https://eastus.example/v1", "gpt-4o")
    digests = [
        digest(whole("responses")),
        digest(whole("responses"), secret=SECRET[::-1]),
        digest(whole("responses"), secret=bytes(32)),
        digest(whole("responses"), "chat"),
        digest(whole("responses"), "embeddings"),
        *(digest(whole("responses"), scope=scope) for scope in ("team team_2", "key team_1", "global", "")),
        *(digest(whole("responses"), query=query) for query in (b"a=1", b"a=2", b"a=1&b=2", b"b=2&a=1", b"?")),
        *(
            digest(whole("responses"), headers=headers, forwarded=FORWARDED)
            for headers in (
                [(b"openai-beta", b"a")],
                [(b"openai-beta", b"b")],
                [(b"openai-beta", b"a"), (b"openai-beta", b"b")],
                [(b"openai-beta", b"b"), (b"openai-beta", b"a")],
                [(b"openai-beta", b"a,b")],
                [(b"openai-beta", b"")],
                [(b"x-version", b"a")],
                [(b"x-version", b"a"), (b"openai-beta", b"a")],
                [(b"x-a", b"bc")],
                [(b"x-ab", b"c")],
            )
        ),
        *(
            digest(whole("responses"), routes=routes)
            for routes in (
                [],
                [other_route],
                [*ROUTES, other_route],
                [other_route, *ROUTES],
                [("openai", "https://api.openai.com/v2", "gpt-4o")],
                [("openai", "https://api.openai.com/v1", "gpt-4o-mini")],
                [("openaihttps", "://api.openai.com/v1", "gpt-4o")],
            )
        ),
    ]
    assert {len(one) for one in digests} == {DIGEST_BYTES} == {32}
    for (at, one), (other_at, other) in itertools.combinations(enumerate(digests), 2):
        assert one != other, (at, other_at)


def test_what_does_not_reach_the_upstream_does_not_count():
    bare = digest(whole("responses"), forwarded=FORWARDED)
    for name in (b"authorization", b"user-agent", b"x-stainless-retry-count", b"x-headgate-cache", b"x-other"):
        assert digest(whole("responses"), forwarded=FORWARDED, headers=[(name, b"a")]) == bare
    both = [(b"x-a", b"1"), (b"openai-beta", b"2")]
    assert digest(whole("responses"), forwarded=FORWARDED, headers=both) == digest(
        whole("responses"), forwarded=FORWARDED, headers=both[::-1]
    ), "headers of different names have no order"


PIECES = st.sampled_from(["", "a", "b", "ab", "ba", "aa", "a b", "\x00"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(PIECES, PIECES, PIECES, PIECES, PIECES), min_size=2, max_size=2))
@example([("ab", "a", "", "", ""), ("a", "ba", "", "", "")])
@example([("", "", "a", "b", ""), ("", "", "ab", "", "")])
def test_no_part_can_be_moved_into_its_neighbour(parts):
    def of(scope: str, query: str, name: str, value: str, upstream: str) -> bytes:
        return digest(
            {},
            scope=scope,
            query=query.encode(),
            headers=[(name.encode(), value.encode())],
            forwarded=[name.encode()],
            routes=[(upstream, "", "")],
        )

    assert (of(*parts[0]) == of(*parts[1])) == (parts[0] == parts[1])


def test_streams_are_told_apart_by_their_options():
    def form(**members: Any) -> str:
        return stream_form(parse_object(msgspec.json.encode(members)))

    assert form() == form(stream_options=None) == form(stream=True) == "stream"
    told = [{"include_usage": True}, {"include_usage": False}, {}, {"include_obfuscation": True}, False, [], "x"]
    forms = {form(stream_options=options) for options in told}
    assert len(forms) == len(told)
    assert all(one.startswith("stream.") for one in forms)
    assert form(stream_options={"a": 1, "b": 2}) == form(stream_options={"b": 2, "a": 1})


# -- what may be kept -----------------------------------------------------------------------------


def nature(family: str, body: dict[str, Any] | bytes) -> tuple[str, str]:
    document = parse_object(body if isinstance(body, bytes) else msgspec.json.encode(body))
    return nature_of(family, peek(family, document), document)


def both_ways(family: str, body: dict[str, Any]) -> tuple[str, str]:
    """The same, however the body is spelled."""
    found = nature(family, body)
    for body_text in (json.dumps(body, indent=1), msgspec.json.encode(body).decode().replace("_", "\\u005f")):
        assert nature(family, body_text.encode()) == found
    return found


def of_input(*items: Any) -> dict[str, Any]:
    return whole("responses", input=list(items))


def of_content(*parts: Any) -> dict[str, Any]:
    return of_input({"role": "user", "content": list(parts)})


def of_messages(*parts: Any, **members: Any) -> dict[str, Any]:
    return whole("chat", messages=[{"role": "user", "content": list(parts)}], **members)


def of_tools(*tools: Any, family: str = "responses") -> dict[str, Any]:
    return whole(family, tools=list(tools))


PICTURE = "data:image/png;base64,iVBORw0KGgo="
FUNCTION = {"type": "function", "name": "f", "parameters": {"properties": {"file_id": {}, "image_url": {}, "id": {}}}}
HOSTED = """web_search web_search_preview web_search_2025_08_26 web_search_preview_2025_03_11 file_search
code_interpreter mcp image_generation programmatic_tool_calling shell tool_search function2 Function""".split()

NEVER = [
    ("previous_response_id", whole("responses", previous_response_id="resp_1")),
    ("previous_response_id", whole("responses", previous_response_id="")),
    ("conversation", whole("responses", conversation="conv_1")),
    ("conversation", whole("responses", conversation={"id": "conv_1"})),
    ("prompt", whole("responses", prompt={"id": "pmpt_1"})),
    ("context_management", whole("responses", context_management=[{"type": "compaction"}])),
    ("context_management", whole("responses", context_management=[])),
    ("moderation", whole("responses", moderation={"model": "omni-moderation-latest"})),
    ("multi_agent", whole("responses", multi_agent={"enabled": True})),
    ("generate", whole("responses", generate=False)),
    *(("hosted tool", of_tools(FUNCTION, {"type": kind})) for kind in HOSTED),
    *(("hosted tool", of_tools({"type": kind})) for kind in ("computer", "computer_use_preview", "computer_20990101")),
    ("hosted tool", of_tools({"type": "shell", "environment": None})),
    ("hosted tool", of_tools({"type": "shell", "environment": {"type": "container_auto"}})),
    ("hosted tool", of_tools({"type": "shell", "environment": "local"})),
    ("hosted tool", of_tools({"type": "tool_search", "execution": "server"})),
    ("hosted tool", of_tools({"name": "f"})),
    ("hosted tool", of_tools({"type": 5})),
    ("hosted tool", of_tools({"type": None})),
    ("item_reference", of_input({"type": "item_reference", "id": "msg_1"})),
    ("item_reference", of_input({"id": "msg_1"})),
    ("item_reference", of_input({"id": "msg_1", "type": None})),
    ("item_reference", of_input({"role": "user", "content": "a"}, {"id": "msg_1", "type": "message"})),
    ("item_reference", of_input({"id": "ig_1", "type": "image_generation_call", "status": "completed"})),
    ("item_reference", of_content({"type": "item_reference", "id": "msg_1"})),
    ("file_id", of_content({"type": "input_file", "file_id": "file_1"})),
    ("file_id", of_content({"type": "input_image", "file_id": "file_1"})),
    ("file_id", of_content({"type": "input_image", "image_url": PICTURE, "file_id": "file_1"})),
    ("file_url", of_content({"type": "input_file", "file_url": "https://example.com/a.pdf"})),
    *(
        ("image_url", of_content({"type": "input_image", "image_url": url}))
        for url in ("https://example.com/a.png", "HTTP://example.com", "//example.com", "file:///a", " data:x", "", "d")
    ),
    ("image_url", of_content({"type": "input_text", "text": PICTURE}, {"image_url": {"url": "https://example.com"}})),
    (
        "image_url",
        of_input({"type": "function_call_output", "call_id": "c", "output": [{"image_url": "https://example.com"}]}),
    ),
    ("file_id", of_input({"type": "custom_tool_call_output", "call_id": "c", "output": [{"file_id": "file_1"}]})),
    (
        "image_url",
        of_input({"type": "computer_call_output", "call_id": "c", "output": {"image_url": "http://example.com"}}),
    ),
    ("file_url", whole("responses", instructions=[{"role": "system", "content": [{"file_url": "https://e.com"}]}])),
    ("item_reference", whole("responses", instructions=[{"id": "msg_1"}])),
    ("file_id", of_input([[[{"a": {"b": [{"c": {"file_id": "file_1"}}]}}]]])),
]
NEVER_CHAT = [
    ("background", whole("chat", background=True)),
    ("previous_response_id", whole("chat", previous_response_id="resp_1")),
    ("hosted tool", whole("chat", web_search_options={})),
    ("hosted tool", of_tools({"type": "web_search"}, family="chat")),
    ("hosted tool", of_tools({"type": "computer"}, family="chat")),
    ("audio", whole("chat", modalities=["text", "audio"])),
    ("audio", whole("chat", audio={"voice": "alloy", "format": "mp3"})),
    ("image_url", of_messages({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})),
    ("image_url", of_messages({"type": "image_url", "image_url": "https://example.com/a.png"})),
    # Of servers that are not OpenAI.
    ("video_url", of_messages({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}})),
    ("audio_url", of_messages({"type": "audio_url", "audio_url": "https://example.com/a.mp3"})),
    ("stream_options", whole("chat", stream=False, stream_options={"include_usage": True})),
    ("file_id", of_messages({"type": "file", "file": {"file_id": "file_1"}})),
    ("file_id", whole("chat", messages=[{"role": "tool", "tool_call_id": "c", "content": [{"file_id": "f"}]}])),
]
DETERMINISTIC = [
    ("responses", whole("responses")),
    ("responses", whole("responses", **dict.fromkeys("previous_response_id conversation prompt moderation".split()))),
    ("responses", whole("responses", context_management=None, multi_agent=None, background=False, generate=True)),
    ("responses", whole("responses", tools=None, instructions="file_id", metadata={"file_id": "a", "id": "b"})),
    ("responses", of_tools(FUNCTION, {"type": "custom"}, {"type": "apply_patch"}, {"type": "local_shell"})),
    ("responses", of_tools({"type": "shell", "environment": {"type": "local"}})),
    ("responses", of_tools({"type": "tool_search", "execution": "client"}, {"type": "namespace", "tools": [FUNCTION]})),
    ("responses", of_content({"type": "input_image", "image_url": PICTURE, "file_id": None})),
    ("responses", of_content({"type": "input_image", "image_url": "DATA:image/png;base64,AA=="})),
    ("responses", of_content({"type": "input_file", "file_data": "data:text/plain,a", "filename": "a"})),
    ("responses", of_content({"type": "input_text", "text": 'a "file_id" and {"image_url": "https://example.com"}'})),
    ("responses", of_input({"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"file_id":"a"}'})),
    ("responses", of_input({"id": "msg_1", "type": "message", "role": "assistant", "content": [], "status": "a"})),
    ("chat", whole("chat", store=False, background=False, modalities=["text"], audio=None, web_search_options=None)),
    ("chat", of_tools({"type": "function", "function": FUNCTION}, family="chat")),
    ("chat", of_messages({"type": "image_url", "image_url": {"url": PICTURE}})),
    ("chat", of_messages({"type": "file", "file": {"file_data": "data:,a", "file_id": None}})),
    ("chat", of_messages({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA=="}})),
    ("chat", whole("chat", stream=True, stream_options={"include_usage": True})),
    ("chat", of_messages({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}})),
    ("embeddings", whole("embeddings")),
    ("embeddings", whole("embeddings", input=["a", "b"], dimensions=3, store=True, temperature=1, user="a")),
]


@pytest.mark.parametrize(("reason", "body"), NEVER, ids=range(len(NEVER)))
def test_a_response_that_reads_what_is_elsewhere_or_acts_is_never_kept(reason, body):
    assert both_ways("responses", body) == ("never", reason)
    # Nothing makes it one that may be kept, in any mode.
    assert both_ways("responses", body | {"temperature": 1, "store": True}) == ("never", reason)


@pytest.mark.parametrize(("reason", "body"), NEVER_CHAT, ids=range(len(NEVER_CHAT)))
def test_a_completion_that_reads_what_is_elsewhere_or_acts_is_never_kept(reason, body):
    assert both_ways("chat", body) == ("never", reason)


@pytest.mark.parametrize(("family", "body"), DETERMINISTIC, ids=range(len(DETERMINISTIC)))
def test_what_has_all_in_itself_may_be_kept(family, body):
    assert both_ways(family, body) == ("deterministic", "")


@pytest.mark.parametrize("family", ["responses", "chat"])
def test_where_only_the_same_answer_will_do_the_short_way_lets_through_the_same(family):
    bodies = [body for of_family, body in DETERMINISTIC if of_family == family]
    bodies += [body for _, body in (NEVER if family == "responses" else NEVER_CHAT)]
    for body in bodies:
        for members in ({}, {"temperature": 1}, {"temperature": None}, {"store": True}, {"store": None}):
            document = parse_object(msgspec.json.encode(body | members))
            ask = peek(family, document)
            at_length = nature_of(family, ask, document)[0]
            short = nature_of(family, ask, document, only_deterministic=True)[0]
            assert (short == "deterministic") == (at_length == "deterministic"), (body, members)


def test_a_background_response_is_not_kept():
    body = parse_object(msgspec.json.encode(whole("responses", background=True)))
    assert nature_of("responses", peek("responses", body), body) == ("never", "background")


@pytest.mark.parametrize(
    "escaped",
    [
        rb'"input":[{"content":[{"\u0066ile_id":"file_1"}]}]',
        rb'"input":[{"content":[{"file\u005fid":"file_1"}]}]',
        rb'"input":[{"\u0069d":"msg_1"}]',
        rb'"input":[{"type":"item_\u0072eference"}]',
        rb'"input":[{"content":[{"image_ur\u006c":"https://example.com"}]}]',
        rb'"tools":[{"type":"web_\u0073earch"}]',
        rb'"t\u006fols":[{"type":"mcp"}]',
        rb'"\u0063onversation":"conv_1"',
    ],
)
def test_an_escape_hides_nothing(escaped):
    assert nature("responses", b'{"model":"m","temperature":0,"store":false,' + escaped + b"}")[0] == "never"


@pytest.mark.parametrize(
    ("family", "store", "kept"),
    [(family, store, kept) for family in ("responses", "chat") for store, kept in
     [("absent", family == "responses"), (None, family == "responses"), (True, True), (False, False)]],
)  # fmt: skip
def test_what_the_provider_stores_is_repeated_only_where_policy_allows(family, store, kept):
    body = {name: value for name, value in whole(family, store=store).items() if value != "absent"}
    assert both_ways(family, body) == (("repeatable", "store") if kept else ("deterministic", ""))
    document = parse_object(msgspec.json.encode(body))
    assert keeps_state(family, peek(family, document), document) == kept


@pytest.mark.parametrize("family", ["responses", "chat"])
@pytest.mark.parametrize(
    ("temperature", "zero"),
    [(None, False), (0, True), (0.0, True), (-0.0, True), (0.5, False), (1, False), (1e-300, False), ("0", False),
     (True, False), (False, False), ([], False), ({}, False)],
)  # fmt: skip
def test_only_a_temperature_of_zero_is_the_same_each_time(family, temperature, zero):
    body = whole(family, temperature=temperature)
    assert both_ways(family, body) == (("deterministic", "") if zero else ("repeatable", "temperature"))
    assert is_zero(parse_object(msgspec.json.encode(body))) == zero


def test_without_a_temperature_an_answer_is_one_of_many():
    for family in ("responses", "chat"):
        body = {name: value for name, value in whole(family).items() if name != "temperature"}
        assert both_ways(family, body) == ("repeatable", "temperature")


WORDS = """model input messages instructions tools type id status content file_id file_url image_url url item_reference
data: store temperature generate background prompt web_search function message audio""".split()
ANYTHING = st.recursive(
    st.sampled_from([None, True, False, 0, 0.5, -1, "", *WORDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(FAMILIES), st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=7))
def test_any_body_is_refused_or_judged_alike_however_it_is_spelled(family, body):
    body = {"model": "m"} | body
    try:
        found = nature(family, body)
    except GatewayError:
        return
    assert both_ways(family, body) == found
    assert (found[0] == "deterministic") == (found[1] == "")
