"""Objects that the provider keeps and hardly does anything with: one table says what there is."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from app.simulator.errors import RequestRefused, refuse_missing
from app.simulator.identifiers import random_hex
from app.simulator.pages import page_of
from app.simulator.resources.multipart import read_form
from app.simulator.routes import Reply, json_reply
from app.simulator.steering import Steering, steering_of

if TYPE_CHECKING:
    from app.core.clock import Clock
    from app.simulator.routes import Request, Routes

OBJECTS_MAX = 10_000
OBJECTS_BYTES_MAX = 64 * 1024 * 1024
OVERHEAD_BYTES = 500
SETTLE_MS = 100
"""After so long an object that was begun is what it will be."""

_UNSTEERED = Steering(queue_ms=SETTLE_MS)

Members = dict[str, Any]
Key = tuple[str, ...]


class Kind(NamedTuple):
    """One kind of object. ``pattern`` is its list's path; ``needs`` are the members without which none is made."""

    pattern: str
    prefix: str
    name: str
    needs: tuple[str, ...] = ()
    members: Members = {}  # noqa: RUF012 - never changed, only copied
    """What an object has beside what its request said."""
    settled: Members = {}  # noqa: RUF012 - as above
    """What it has after a while."""
    cancelled: Members = {}  # noqa: RUF012 - as above
    """What it has when it was cancelled; empty where it cannot be."""
    parent: str = ""
    """The member that holds the id of what it belongs to."""
    listed_by: str = "desc"


class Tables:
    """The newest objects of all kinds, bounded by number and by bytes."""

    def __init__(self, clock: Clock, *, objects_max: int = OBJECTS_MAX, bytes_max: int = OBJECTS_BYTES_MAX) -> None:
        self._clock = clock
        self._objects: OrderedDict[Key, Members] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self._settling: dict[Key, tuple[int, Members]] = {}
        self._bytes = 0
        self.objects_max = objects_max
        self.bytes_max = bytes_max

    def now_s(self) -> int:
        return self._clock.now_ms() // 1000

    def keep(self, key: Key, shown: Members, settled: Members | None = None, settle_ms: int = 0) -> None:
        """Remember an object under its kind's pattern and its ids. It becomes ``settled`` after a while."""
        self.remove(key)
        self._objects[key] = shown
        self._sizes[key] = size = len(msgspec.json.encode(shown)) + OVERHEAD_BYTES
        self._bytes += size
        if settled:
            self._settling[key] = (self._clock.now_ms() + settle_ms, settled)
        while self._objects and (len(self._objects) > self.objects_max or self._bytes > self.bytes_max):
            self.remove(next(iter(self._objects)))

    def find(self, key: Key) -> Members | None:
        """The object as it is now."""
        shown = self._objects.get(key)
        due = self._settling.get(key)
        if shown is not None and due is not None and self._clock.now_ms() >= due[0]:
            del self._settling[key]
            shown |= {name: self.now_s() if name.endswith("_at") else value for name, value in due[1].items()}
        return shown

    def found(self, key: Key) -> Members:
        """The same; a refusal where there is none."""
        shown = self.find(key)
        if shown is None:
            raise RequestRefused(404, f"No object found with id '{key[-1]}'.")
        return shown

    def below(self, key: Key) -> list[Members]:
        """Every object of a pattern and its parents' ids, oldest first."""
        length = len(key)
        keys = [held for held in self._objects if len(held) == length + 1 and held[:length] == key]
        return [self.found(held) for held in keys]

    def settle(self, key: Key, members: Members) -> None:
        """Change an object now, for good."""
        self._settling.pop(key, None)
        self._objects[key] |= members

    def remove(self, key: Key) -> bool:
        """Forget an object; whether it was there."""
        shown = self._objects.pop(key, None)
        if shown is None:
            return False
        self._settling.pop(key, None)
        self._bytes -= self._sizes.pop(key)
        return True

    def __repr__(self) -> str:
        return f"Tables(objects={len(self._objects)}/{self.objects_max}, bytes={self._bytes}/{self.bytes_max})"


class Collection:
    """The endpoints of one kind."""

    def __init__(self, kind: Kind, tables: Tables) -> None:
        self._kind = kind
        self._tables = tables

    def add_to(self, routes: Routes) -> None:
        pattern = self._kind.pattern
        routes.add("POST", pattern, self.create)
        routes.add("GET", pattern, self.list)
        routes.add("GET", f"{pattern}/{{}}", self.get)
        routes.add("POST", f"{pattern}/{{}}", self.update)
        routes.add("DELETE", f"{pattern}/{{}}", self.delete)
        if self._kind.cancelled:
            routes.add("POST", f"{pattern}/{{}}/cancel", self.cancel)

    async def create(self, request: Request, *parents: str) -> Reply:
        kind, tables = self._kind, self._tables
        self._check_parents(parents)
        told = await members_of(request)
        for name in kind.needs:
            if told.get(name) is None:
                refuse_missing(name)
        shown = {
            "id": f"{kind.prefix}{random_hex(32)}",
            "object": kind.name,
            "created_at": tables.now_s(),
            "metadata": {},
            **kind.members,
            **{name: value for name, value in told.items() if value is not None and name != "id"},
        }
        if kind.parent:
            shown[kind.parent] = parents[-1]
        tables.keep((kind.pattern, *parents, shown["id"]), shown, kind.settled, steering_of_metadata(told).queue_ms)
        return json_reply(shown)

    async def list(self, request: Request, *parents: str) -> Reply:
        self._check_parents(parents)
        shown = self._tables.below((self._kind.pattern, *parents))
        return json_reply(page_of(shown, request, order=self._kind.listed_by))

    async def get(self, request: Request, *ids: str) -> Reply:
        del request
        return json_reply(self._tables.found((self._kind.pattern, *ids)))

    async def update(self, request: Request, *ids: str) -> Reply:
        key = (self._kind.pattern, *ids)
        shown = dict(self._tables.found(key))
        told = await request.members()
        shown |= {name: value for name, value in told.items() if name not in ("id", "object", "created_at")}
        self._tables.keep(key, shown)
        return json_reply(shown)

    async def delete(self, request: Request, *ids: str) -> Reply:
        del request
        key = (self._kind.pattern, *ids)
        self._tables.found(key)
        self._tables.remove(key)
        return json_reply({"id": ids[-1], "object": f"{self._kind.name}.deleted", "deleted": True})

    async def cancel(self, request: Request, *ids: str) -> Reply:
        del request
        key = (self._kind.pattern, *ids)
        shown = self._tables.found(key)
        if all(shown.get(name) != value for name, value in self._kind.settled.items()):
            self._tables.settle(key, self._kind.cancelled)
        return json_reply(shown)

    def _check_parents(self, parents: tuple[str, ...]) -> None:
        """What it belongs to must be there: ``a/{}/b/{}/c`` is below ``a/{}/b``, which is below ``a``."""
        parts = self._kind.pattern.split("/{}")
        for depth in range(len(parents)):
            self._tables.found(("/{}".join(parts[: depth + 1]), *parents[: depth + 1]))

    def __repr__(self) -> str:
        return f"Collection({self._kind.pattern})"


def steering_of_metadata(members: Members) -> Steering:
    """The directives under ``sim`` in an object's metadata: it has no prompt that could hold them."""
    metadata = members.get("metadata")
    directive = metadata.get("sim") if isinstance(metadata, dict) else None
    return steering_of(directive) if isinstance(directive, str) else _UNSTEERED


async def members_of(request: Request) -> Members:
    """The members of a JSON body, or the fields of a form, whose files are counted and dropped."""
    if not request.headers.get(b"content-type", b"").startswith(b"multipart/"):
        return await request.members()
    form = await read_form(request)
    sizes = {name: [file.blob.size for file in files] for name, files in form.files.items()}
    form.close()
    return {**form.fields, **{f"{name}_bytes": told for name, told in sizes.items()}}
