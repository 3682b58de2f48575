"""The buckets of a usage, out of what an answer says: its ``usage``, its items and its ``tool_usage``."""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.usage import Usage

UNREADABLE = (ValueError, RecursionError)
"""What msgspec raises: its own errors, and UnicodeDecodeError, are ValueErrors."""
TOKENS_ABSURD = 20_000_000
"""Ten times the largest context window on offer: above it a count is a fault, not a bill."""
CALLS_ABSURD = 1_000_000
CONTAINERS_MAX = 256
DEPTH_MAX = 8
CALL_ITEMS = (
    b'"web_search_call"',
    b'"file_search_call"',
    b'"code_interpreter_call"',
    b'"shell_call"',
    b'"image_generation_call"',
)
"""Items of calls that are billed apart. The others cost their tokens: functions, custom tools, patches, MCP,
the computer, a local shell, a search for tools."""
FREE_ACTIONS = frozenset({"open_page", "find_in_page", "find"})
"""What a web search does with a page that it has found: only the search itself is billed."""
PREVIEW = "web_search_preview"
# Totals, and where their parts are: transcriptions and the realtime API write these in the singular.
RESPONSES_NAMES = (
    "input_tokens",
    "output_tokens",
    "input_tokens_details",
    "input_token_details",
    "output_tokens_details",
    "output_token_details",
)
CHAT_NAMES = (
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "input_tokens_details",
    "completion_tokens_details",
    "output_tokens_details",
)
_NOTHING: dict[str, Any] = {}


class _Item(msgspec.Struct):
    type: Any = None
    action: Any = None
    container_id: Any = None
    environment: Any = None


class _Tool(msgspec.Struct):
    type: Any = None


_item_decoder = msgspec.json.Decoder(_Item)
_items_decoder = msgspec.json.Decoder(list[_Item])
_tools_decoder = msgspec.json.Decoder(list[_Tool])


class CallCount:
    """Counts the calls that are billed apart, item by item."""

    __slots__ = ("_containers", "files", "images", "nameless", "searches")

    def __init__(self) -> None:
        self.searches = 0
        self.files = 0
        self.images = 0
        self.nameless = 0
        """Calls of code whose container is not told: each is taken for one of its own."""
        self._containers: set[str] = set()

    def __repr__(self) -> str:
        return f"CallCount({self.usage()!r})"

    def see_item(self, raw: msgspec.Raw) -> None:
        """Count one item of a stream."""
        data = bytes(raw)
        if b'_call"' in data and _names_a_call(data):
            try:
                self._count(_item_decoder.decode(data))
            except UNREADABLE:
                return

    def see_items(self, raw: msgspec.Raw) -> None:
        """Count the items of a whole answer."""
        data = bytes(raw)
        if b'_call"' in data and _names_a_call(data):
            try:
                items = _items_decoder.decode(data)
            except UNREADABLE:
                return
            for item in items:
                self._count(item)

    def usage(self) -> Usage:
        """The calls in their buckets."""
        return Usage(
            web_searches=self.searches,
            file_searches=self.files,
            code_sessions=self.nameless + len(self._containers),
            image_calls=self.images,
        )

    def _count(self, item: _Item) -> None:
        match item.type:
            case "web_search_call":
                action = item.action.get("type") if isinstance(item.action, dict) else None
                if not (isinstance(action, str) and action in FREE_ACTIONS):
                    self.searches += 1
            case "file_search_call":
                self.files += 1
            case "image_generation_call":
                self.images += 1
            case "code_interpreter_call":
                self._ran_in(item.container_id)
            case "shell_call":
                # A shell of the client's own runs in no container.
                environment = item.environment if isinstance(item.environment, dict) else {}
                kind = environment.get("type")
                if isinstance(kind, str) and kind != "local":
                    self._ran_in(environment.get("container_id"))
            case _:
                pass

    def _ran_in(self, container: Any) -> None:
        if isinstance(container, str) and container and len(self._containers) < CONTAINERS_MAX:
            self._containers.add(container[:CONTAINERS_MAX])
        else:
            self.nameless += 1


def _names_a_call(data: bytes) -> bool:
    for name in CALL_ITEMS:  # noqa: SIM110 - a generator costs as much as the search
        if name in data:
            return True
    return False


def calls_used(counted: Usage, tool_usage: Any, tools: msgspec.Raw) -> Usage:
    """The calls to bill: ``counted`` from the items, corrected by what the answer says was billed apart.

    ``tools`` are the tools that the answer says it had: they tell which version of web search it was.
    """
    searches, images, unknown = counted.web_searches, counted.image_calls, 0
    if isinstance(tool_usage, dict):
        for family, told in tool_usage.items():
            if family == "web_search":
                searches = _count_of(told, "num_requests", searches)
            elif family == "image_gen":
                images = max(images, int(_says_something(told)))
            else:
                unknown += _says_something(told)
    return msgspec.structs.replace(
        counted,
        web_searches=searches,
        preview_searches=searches if searches and _has_preview(tools) else 0,
        image_calls=images,
        unknown_units=unknown,
    )


def _count_of(told: Any, name: str, otherwise: int) -> int:
    count = told.get(name) if isinstance(told, dict) else None
    return count if type(count) is int and 0 <= count <= CALLS_ABSURD else otherwise


def _says_something(told: Any, depth: int = DEPTH_MAX) -> bool:
    """Whether any number in it is not zero; what lies too deep to look at may be one."""
    if isinstance(told, (dict, list)):
        values = told.values() if isinstance(told, dict) else told
        return not depth or any(_says_something(value, depth - 1) for value in values)
    return isinstance(told, (int, float)) and bool(told)


def _has_preview(tools: msgspec.Raw) -> bool:
    if PREVIEW.encode() not in bytes(tools):
        return False
    try:
        return any(
            isinstance(tool.type, str) and tool.type.startswith(PREVIEW) for tool in _tools_decoder.decode(tools)
        )
    except UNREADABLE:
        return False


def usage_of(raw: Any, *, outputless: bool) -> tuple[Usage | None, bool]:
    """The usage in its buckets, and whether it is absurd. Missing and absurd give None.

    ``outputless``: the answer's usage has no output (embeddings).
    """
    if not isinstance(raw, dict):
        return None, raw is not None
    names = _names_of(raw)
    if names is None:
        return None, True
    total_in, total_out = raw.get(names[0]), raw.get(names[1])
    if total_in is None or (total_out is None and not (outputless and names is CHAT_NAMES)):
        # What is not there is missing, not zero.
        return None, False
    if not outputless:
        total_out = _whole_output(total_in, total_out, raw.get("total_tokens"))
    into, out = raw.get(names[2]), raw.get(names[4])
    if type(into) is not dict:
        into = _member(raw, names[3])
    if type(out) is not dict:
        out = _member(raw, names[5])
    counts = (
        total_in,
        into.get("cached_tokens") or 0,
        into.get("cache_write_tokens") or 0,
        into.get("audio_tokens") or 0,
        total_out or 0,
        out.get("reasoning_tokens") or 0,
        out.get("audio_tokens") or 0,
        0,
        0,
        *_inner_parts(into),
        out.get("image_tokens") or 0,
        _member(into, "cache_write_tokens_details").get("ttl_12h_tokens") or 0,
    )
    for count in counts:
        if type(count) is not int or not 0 <= count <= TOKENS_ABSURD:
            return None, True
    usage = Usage(*counts)
    return (usage, False) if _adds_up(usage) else (None, True)


def _names_of(raw: dict[str, Any]) -> tuple[str, ...] | None:
    """Under which names it tells its totals. Some servers give both, and zeros under those that they do not mean;
    None where the two disagree.
    """
    if "prompt_tokens" not in raw and "completion_tokens" not in raw:
        return RESPONSES_NAMES
    ours = raw.get("input_tokens"), raw.get("output_tokens")
    chats = raw.get("prompt_tokens"), raw.get("completion_tokens")
    # Null, zero or not there.
    if not any(ours):
        return CHAT_NAMES
    if not any(chats):
        return RESPONSES_NAMES
    if any(None not in pair and pair[0] != pair[1] for pair in zip(ours, chats, strict=True)):
        return None
    has_details = any(type(raw.get(name)) is dict for name in RESPONSES_NAMES[2:])
    return RESPONSES_NAMES if None not in ours and (has_details or None in chats) else CHAT_NAMES


def _whole_output(total_in: Any, total_out: Any, total: Any) -> Any:
    """Some servers count hidden reasoning in ``total_tokens`` only; it is billed as output all the same."""
    if type(total) is int and type(total_in) is int and type(total_out) is int and total > total_in + total_out:
        return total - total_in
    return total_out


def _inner_parts(into: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Cached audio, images and cached images."""
    cached = _member(into, "cached_tokens_details")
    return cached.get("audio_tokens") or 0, into.get("image_tokens") or 0, cached.get("image_tokens") or 0


def _member(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """The member if it is an object, else an empty one."""
    member = raw.get(name)
    return member if isinstance(member, dict) else _NOTHING


def _adds_up(usage: Usage) -> bool:
    """Whether no part is larger than what it is a part of."""
    return (
        usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
        and usage.reasoning_tokens <= usage.output_tokens
        and usage.input_audio_tokens + usage.input_image_tokens <= usage.input_tokens
        and usage.output_audio_tokens + usage.output_image_tokens <= usage.output_tokens
        and usage.cached_audio_tokens + usage.cached_image_tokens <= usage.cached_tokens
        and usage.cached_audio_tokens <= usage.input_audio_tokens
        and usage.cached_image_tokens <= usage.input_image_tokens
        and usage.cache_write_12h_tokens <= usage.cache_write_tokens
    )
