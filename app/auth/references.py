"""Where a request names an object that the provider stores, and where an answer does.

All teams share one account upstream, so a foreign id would reach another team's data. What is a reference is told by
the member's name, and a name that looks like one is taken for one: a member that nobody here has heard of is looked
up, and found to be nobody's, rather than passed. The other way round, what an answer to a team's own request names
in such a member is the team's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from app.core.codec import JSONObject
from app.core.errors import AmbiguousJSON, InvalidJSON, InvalidRequest, quoted
from app.core.exchange import Dialect

# Cheap to look for in the raw bytes: a body without any of them (and without escaped letters, which could
# spell them) names nothing. ``_id`` is in the name of most.
HINTS = (b"_id", b'"id"', b"item_reference", b'"conversation"', b'"container"', b'"prompt"', b"_file", b"\\u00")
PLAIN_FIELDS = frozenset("training_file validation_file".split())
"""Names of references that do not end as the others do."""
NOT_OBJECTS = frozenset(
    (
        "call_id tool_call_id custom_id connector_id end_user_id user_id trace_id group_id stream_id client_id"
        " organization_id project_id external_id event_id response_item_id item_id previous_item_id message_id"
        " server_id environment_id cache_id program_id caller_id agent_id"
    ).split()
)
"""Names that end as references do, and stand for a call, a person, or what the client itself counts by."""
# What an item has beside what it says. With an id and nothing more it stands for the stored one.
BARE_FIELDS = frozenset("id type status role".split())
IN_ITEMS = ("id", "type")
STANDS_FOR_STORED = {"image_generation_call": "result", "reasoning": "encrypted_content"}
"""Items that are looked up by their id unless they have this member."""
# A client's own schemas, names and labels: the words in there are not the API's.
OPAQUE_FIELDS = frozenset(
    "parameters schema input_schema output_schema item_schema metadata arguments json_schema headers response_format"
    " attributes item sample env".split()
)
BROUGHT_FIELDS = OPAQUE_FIELDS | frozenset("variables datasource_item error approval_request_id".split())
"""The same in answers: what a client, or a server of its choice, has put there, and the upstream repeats."""
OF_SERVERS = ("mcp_list_tools", "mcp_call")
"""Items that hold what such a server says."""
NAMES_BY_ID = frozenset("conversation prompt container audio voice source response".split())
"""Members whose value is an id, or an object that has one."""
NAMES_AS_TEXT = frozenset(("conversation", "container"))
"""Those of which a text is an id, wherever they stand: tools are also in items, and in what an eval runs."""
ACCOUNT_SOURCES = ("stored_completions", "logs", "responses")
READ_FIELDS = frozenset(
    (
        "model stream stream_options max_output_tokens max_tokens max_completion_tokens n best_of user"
        " safety_identifier service_tier store background previous_response_id conversation prompt input items messages"
        " tools max_tool_calls request_id training_file validation_file type stream_id"
    ).split()
)
"""What is read at the top of a body or a frame."""
DEPTH_MAX = 128
REFERENCES_MAX = 2000
_QUERY_REFERENCE = re.compile(rb"(?i)_id|after=|before=")


class Reference(msgspec.Struct, frozen=True):
    """An id, and the member that it stands in. ``told``: what it names is told in full beside it, as open models do
    with reasoning, so that an upstream that keeps nothing has no need to find it.
    """

    object_id: str
    param: str
    told: bool = False


def find_references(dialect: Dialect, body: JSONObject) -> list[Reference]:
    """What ``body`` names of what is stored. Raises InvalidRequest where that is too much or too deep, and where a name
    is spelled as some servers alone would read it.
    """
    refuse_other_spellings(body.members)
    source = body.body
    if not _may_name_something(source):
        return []
    found = _Found(dialect)
    for name, value in body.value.items():
        if name in {"input", "items"} and dialect == "responses":
            found.items(value)
        elif name not in OPAQUE_FIELDS and not (name == "prompt" and isinstance(value, str)):
            found.member(name, value, DEPTH_MAX)
    return found.references


def refuse_other_spellings(names: Iterable[str], read: Collection[str] = READ_FIELDS) -> None:
    """Servers written in Go take a member whatever the case of its name, others do not: to them such a body is another
    one. Raises AmbiguousJSON.
    """
    for name in names:
        plain = name.casefold()
        if plain != name and (plain in read or is_reference(plain)):
            raise AmbiguousJSON(f"The member {quoted(name)!r} is to be written {plain!r}.", param=plain)


def references_of_fields(fields: Iterable[tuple[str, str]]) -> list[Reference]:
    """What the fields of a form, or of a query, name. Raises AmbiguousJSON where a name is spelled as some servers
    alone would read it: those written in .NET take fields whatever the case of their names.
    """
    found = []
    for field, value in fields:
        outermost, *inner = field.replace("]", "").split("[")
        if outermost in OPAQUE_FIELDS or not value:
            continue
        refuse_other_spellings((outermost, *inner))
        # ``video[id]`` is a reference, and so is ``images[0][file_id]``.
        if is_reference(outermost) or any(part == "id" or is_reference(part) for part in inner):
            found.append(Reference(value, field))
    return found


def references_of_query(query: bytes) -> list[Reference]:
    """What a query names, cursors apart."""
    if _QUERY_REFERENCE.search(query) is None and b"%" not in query:
        return []
    fields = fields_of_query(query)
    if b";" in query:
        # Old servers take it for the sign between two fields.
        fields += fields_of_query(query.replace(b";", b"&"))
    return references_of_fields(fields)


def fields_of_query(query: bytes) -> list[tuple[str, str]]:
    """The fields of a query, in order."""
    pairs = (part.partition("=") for part in query.decode("latin-1").split("&") if part)
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in pairs]


def is_reference(name: str) -> bool:
    """Whether a member of this name holds an id of something stored."""
    return (name.endswith(("_id", "_ids")) and name not in NOT_OBJECTS) or name in PLAIN_FIELDS


TAUGHT = {
    "batches": {"output_file_id": "file", "error_file_id": "file"},
    "fine_tuning": {"fine_tuned_model": "model", "fine_tuned_model_checkpoint": "model", "result_files": "file"},
    "uploads": {"file": "file"},
}
"""Members of a family's answers that name what was made, each with its kind; others are only ``named``."""


def objects_of_answer(answer: Any, family: str = "") -> Iterator[tuple[str, str]]:
    """The ids in an answer's members that name objects, each with its kind, apart from its own ``id``. No member is
    read that a request could have brought in unseen.
    """
    yield from _taught(answer, TAUGHT.get(family, {}))
    waiting: list[tuple[Any, int]] = [(answer, DEPTH_MAX)]
    while waiting:
        value, depth = waiting.pop()
        if not depth:
            continue
        if isinstance(value, dict):
            if value.get("type") in OF_SERVERS:
                continue
            for name, member in value.items():
                if name in BROUGHT_FIELDS or _is_of_a_tool(name, member):
                    continue
                if is_reference(name):
                    told = member.get("id") if isinstance(member, dict) else member
                    yield from (("named", object_id) for object_id in _texts(told))
                waiting.append((member, depth - 1))
        elif isinstance(value, list):
            waiting += [(member, depth - 1) for member in value if isinstance(member, dict | list)]


def _taught(answer: Any, members: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What such members name, at the top of an answer or of what it lists: further within they may be a client's."""
    rows = answer.get("data") if isinstance(answer, dict) else None
    for row in (answer, *(rows if isinstance(rows, list) else ())):
        for name, kind in members.items() if isinstance(row, dict) else ():
            told = row.get(name)
            yield from ((kind, object_id) for object_id in _texts(told.get("id") if isinstance(told, dict) else told))


def _is_of_a_tool(name: str, member: Any) -> bool:
    """Whether it is what an MCP server says of a tool; of a text the annotations are a list."""
    return name == "annotations" and isinstance(member, dict)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, list):
        yield from (each for each in value if isinstance(each, str) and each)


def _may_name_something(source: bytes) -> bool:
    for hint in HINTS:  # noqa: SIM110 - a generator costs as much as the search
        if hint in source:
            return True
    return False


class _Found:
    """Collects references from a document."""

    def __init__(self, dialect: Dialect) -> None:
        self.references: list[Reference] = []
        # Where every id is the client's own count of its calls, or is in a place that is known.
        self._ids_are_places = dialect in {"responses", "chat", "embeddings"}

    def items(self, items: Any) -> None:
        """The items of a Responses input."""
        brought = _approvals_asked(items)
        for item in items if isinstance(items, list) else (items,):
            if isinstance(item, list):
                self.items(item)
            if not isinstance(item, dict):
                continue
            refuse_other_spellings(item, IN_ITEMS)
            object_id = item.get("id")
            kind = item.get("type")
            says = {name for name, value in item.items() if value is not None} - BARE_FIELDS
            in_itself = STANDS_FOR_STORED.get(kind) if isinstance(kind, str) else None
            if object_id is not None and (
                kind == "item_reference" or not says or (in_itself is not None and not item.get(in_itself))
            ):
                self._add("input", object_id, told=kind == "reasoning" and _is_told(item.get("content")))
            for name, member in item.items():
                if name == "approval_request_id" and isinstance(member, str) and member in brought:
                    # It answers what is told in full beside it, as where nothing is stored.
                    continue
                if name not in OPAQUE_FIELDS:
                    self.member(name, member, DEPTH_MAX - 1)

    def member(self, name: str, value: Any, depth: int) -> None:
        """One member of an object, and all that is below it."""
        if not depth:
            raise InvalidJSON("The body is nested too deeply.")
        if is_reference(name) or (name == "id" and not self._ids_are_places):
            for each in value if isinstance(value, list) else (value,):
                if isinstance(each, str):
                    self._add(name, each)
        elif isinstance(value, str) and name in NAMES_AS_TEXT:
            self._add(name, value)
        if isinstance(value, dict):
            self._object(name, value, depth)
        elif isinstance(value, list):
            for member in value:
                if isinstance(member, dict | list):
                    self.member(_of_list(name), member, depth - 1)

    def _object(self, name: str, value: dict[str, Any], depth: int) -> None:
        object_id = value.get("id")
        if (
            self._ids_are_places
            and object_id
            and (
                name in NAMES_BY_ID
                or (isinstance(object_id, str) and (is_reference(name) or value.get("type") == "item_reference"))
            )
        ):
            self._add(name, object_id)
        for inner, member in value.items():
            if name == "variables":
                # What they are called is the prompt's; what they hold may be a file.
                self.member("", member, depth - 1)
            elif inner not in OPAQUE_FIELDS and not _is_of_a_tool(inner, member):
                self.member(inner, member, depth - 1)

    def _add(self, param: str, object_id: Any, *, told: bool = False) -> None:
        if object_id in ("", None):
            return
        if not isinstance(object_id, str):
            raise InvalidRequest(f"The id in {param} must be a string.", param=param)
        if len(self.references) >= REFERENCES_MAX:
            raise InvalidRequest(f"A request may name at most {REFERENCES_MAX} objects.", param=param)
        self.references.append(Reference(object_id, param, told))


def _approvals_asked(items: Any) -> frozenset[str]:
    """The ids of the requests for approval that an input tells in full."""
    if not isinstance(items, list):
        return frozenset()
    asked = [item for item in items if isinstance(item, dict) and item.get("type") == "mcp_approval_request"]
    ids = [item.get("id") for item in asked if isinstance(item.get("name"), str)]
    return frozenset(object_id for object_id in ids if isinstance(object_id, str))


def _is_told(content: Any) -> bool:
    return isinstance(content, list) and bool(content)


def _of_list(name: str) -> str:
    """What stands in a list of ``name`` is walked under a name that is no reference itself."""
    return "" if name in NAMES_BY_ID else name


def models_within(body: JSONObject) -> list[str]:
    """The models that are named anywhere below the top of ``body``."""
    found: dict[str, None] = {}
    waiting: list[tuple[Any, int]] = [(member, DEPTH_MAX) for member in body.value.values()]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict):
            model = value.get("model")
            if isinstance(model, str):
                found[model] = None
            waiting += [(member, depth - 1) for name, member in value.items() if depth and name not in OPAQUE_FIELDS]
        elif isinstance(value, list):
            waiting += [(member, depth - 1) for member in value if depth and isinstance(member, dict | list)]
    return list(found)


def refuse_account_sources(body: JSONObject) -> None:
    """An eval may read what all teams have stored, and name none of it. Raises InvalidRequest."""
    waiting: list[tuple[Any, int]] = [(body.value, DEPTH_MAX)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict):
            if value.get("type") in ACCOUNT_SOURCES:
                raise InvalidRequest("This source holds what every team has stored; use a file.", param="data_source")
            waiting += [(member, depth - 1) for member in value.values() if depth]
        elif isinstance(value, list):
            waiting += [(member, depth - 1) for member in value if depth]
