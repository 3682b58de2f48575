"""The few fields of a body: what they say, what is refused, and what makes a request dear."""

import json

import pytest

from app.core.codec import parse_object, parse_object_fast
from app.core.errors import InvalidRequest
from app.core.peek import PLAIN, Extent, peek


def peeked(family, body):
    raw = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}, separators=(",", ":")).encode()
    return peek(family, parse_object(raw))


def extent(family, **body):
    return peeked(family, body).extent


def part(**fields):
    return [{"role": "user", "content": [fields]}]


def test_a_body_tells_what_the_gateway_must_know():
    ask = peeked(
        "responses",
        {
            "input": "hi",
            "stream": True,
            "max_output_tokens": 9,
            "user": "u",
            "service_tier": "flex",
            "previous_response_id": "resp_1",
            "store": False,
            "reasoning": {"effort": "low"},
        },
    )
    assert (ask.model, ask.stream, ask.output_tokens_max, ask.answers) == ("m", True, 9, 1)
    assert (ask.end_user, ask.service_tier, ask.previous_response_id) == ("u", "flex", "resp_1")
    assert (ask.stores, ask.reasons, ask.extent) == (False, True, PLAIN)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "9"}, "max_output_tokens"),
        ({"max_tool_calls": -1}, "max_tool_calls"),
        ({"max_tool_calls": 1e3}, "max_tool_calls"),
        ({"max_tool_calls": True}, "max_tool_calls"),
        ({"tools": {}}, "tools"),
        ({"tools": ["web_search"]}, "tools"),
        ({"service_tier": 1}, "service_tier"),
    ],
)
def test_a_wrong_type_in_a_field_that_is_read_is_refused(body, param):
    with pytest.raises(InvalidRequest) as caught:
        peeked("responses", {"input": "hi", **body})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("family", "body"),
    [
        ("responses", {"input": 'an "input_image" is only a word here, and "input_file" too'}),
        ("responses", {"input": [{"role": "user", "content": 'say "input_image" and "item_reference"'}]}),
        ("responses", {"input": part(type="input_text", text='{"type":"input_image"}')}),
        ("responses", {"tools": [], "max_tool_calls": None, "prompt": None, "conversation": None}),
        ("chat", {"messages": [{"role": "user", "content": 'a "file" and an "image_url"'}]}),
        ("chat", {"messages": [], "modalities": ["text"], "tools": None}),
        ("embeddings", {"input": part(type="input_image")}),
    ],
)
def test_text_is_plain_whatever_words_are_in_it(family, body):
    assert extent(family, **body) == PLAIN


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"input": part(type="input_image", image_url="https://e.org")}, Extent(images=1)),
        ({"input": part(type="input_image", file_id="file-1")}, Extent(images=1)),
        ({"input": [{"output": {"type": "computer_screenshot", "image_url": "data:"}}]}, Extent(images=1)),
        ({"input": part(type="input_file", file_data="data:")}, Extent(unseen=True)),
        ({"input": [{"type": "item_reference", "id": "rs_1"}]}, Extent(unseen=True)),
        ({"input": part(type="input_audio", input_audio={})}, Extent(audio_input=True)),
        ({"conversation": "conv_1"}, Extent(unseen=True)),
        ({"prompt": {"id": "pmpt_1"}}, Extent(unseen=True, open_ended="prompt")),
        ({"multi_agent": {}}, Extent(unseen=True, open_ended="multi_agent")),
        ({"prompt_cache_options": {"ttl": "12h"}}, Extent(kept_12h=True)),
        ({"prompt_cache_options": {"ttl": "30m"}}, PLAIN),
    ],
)
def test_a_response_tells_what_makes_it_dear(body, expected):
    assert extent("responses", **body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": part(type="image_url", image_url={"url": "https://e.org"}) * 3}, Extent(images=3)),
        ({"messages": part(type="file", file={"file_id": "file-1"})}, Extent(unseen=True)),
        ({"messages": part(type="input_audio", input_audio={})}, Extent(audio_input=True)),
        ({"messages": [], "modalities": ["text", "audio"]}, Extent(audio_output=True)),
        ({"messages": [], "audio": {"voice": "alloy"}}, Extent(audio_output=True)),
        ({"messages": [], "web_search_options": {}}, Extent(tools=("web_search",))),
        ({"messages": [], "prediction": {"content": "x"}}, Extent(prediction_bytes=len('{"content":"x"}'))),
    ],
)
def test_a_chat_tells_what_makes_it_dear(body, expected):
    assert extent("chat", **body) == expected


def test_only_tools_that_the_provider_runs_are_named_each_once_and_an_unknown_one_is_taken_for_such():
    tools = [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"type": {"const": "mcp"}}}},
        {"type": "custom", "name": "c"},
        {"type": "namespace", "name": "n", "tools": []},
        {"type": "shell", "environment": {"type": "local"}},
        {"type": "tool_search", "execution": "client"},
        {"type": "computer_use_preview"},
        {"type": "web_search"},
        {"type": "web_search"},
        {"type": "shell", "environment": {"type": "container_auto"}},
        {"type": "tomorrows_tool"},
        {"type": 7},
    ]
    found = extent("responses", tools=tools, max_tool_calls=4)
    assert found == Extent(tools=("?", "shell", "tomorrows_tool", "web_search"), max_tool_calls=4)


@pytest.mark.parametrize("kind", ["additional_tools", "tool_search_output"])
def test_tools_that_an_item_brings_are_tools_of_the_request(kind):
    """Otherwise a budget would hold back nothing for their calls, and the cache would answer for them."""
    brings = {"type": kind, "role": "developer", "tools": [{"type": "web_search"}, {"type": "function", "name": "f"}]}
    found = extent("responses", input=[brings, {"role": "user", "content": "hi"}], tools=[{"type": "file_search"}])
    assert found == Extent(tools=("file_search", "web_search"))
    assert extent("responses", input=[{**brings, "tools": None}]) == Extent()
    with pytest.raises(InvalidRequest):
        extent("responses", input=[{**brings, "tools": ["web_search"]}])


def test_words_spelled_with_escapes_are_found_all_the_same():
    """Otherwise a client could hide an image from the bound."""
    spelled = b'{"model":"m","input":[{"content":[{"type":"input\\u005fimage","image_url":"https://e.org"}]}]}'
    assert parse_object_fast(spelled) is None
    assert peeked("responses", spelled).extent == Extent(images=1)
    spelled = b'{"model":"m","messages":[{"content":[{"type":"file","\\u0066ile":{}}]}]}'
    assert peeked("chat", spelled).extent == Extent(unseen=True)


def test_spaces_and_order_make_no_difference():
    raw = json.dumps({"input": part(image_url="https://e.org", type="input_image"), "model": "m"}, indent=2).encode()
    assert peeked("responses", raw).extent == Extent(images=1)
