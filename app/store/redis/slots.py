"""Which slot of a cluster a key is in, and which node has which slots."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, NamedTuple

from app.store.redis.address import Host

SLOTS = 16_384
NODES_MAX = 1_000


class SlotRange(NamedTuple):
    """Slots ``first`` to ``last``, both included, and the primary that serves them."""

    first: int
    last: int
    primary: Host


def hash_tag(key: str) -> str:
    """What decides the slot: the text between the first braces if there is any, else the whole key."""
    start = key.find("{") + 1
    if start:
        end = key.find("}", start)
        if end > start:
            return key[start:end]
    return key


def slot_of(key: str) -> int:
    return crc_hqx(hash_tag(key).encode(), 0) % SLOTS


def slot_of_all(keys: Sequence[str]) -> int:
    """The one slot of a script's keys; ValueError unless they share their hash tag."""
    if not keys:
        raise ValueError("in a cluster a script needs a key")
    tag = hash_tag(keys[0])
    for key in keys:
        if hash_tag(key) != tag:
            raise ValueError("in a cluster the keys of a script share one hash tag")
    return crc_hqx(tag.encode(), 0) % SLOTS


def parse_slots(answer: Any, asked: str) -> list[SlotRange]:
    """What CLUSTER SLOTS said; ``asked`` is the host that did, and stands where it names none.

    ValueError for anything else.
    """
    if not isinstance(answer, list) or not answer:
        raise ValueError("the cluster has not assigned any slots")
    try:
        ranges = [
            SlotRange(int(first), int(last), (_host(primary[0], asked), int(primary[1])))
            for first, last, primary, *_ in answer
        ]
    except (TypeError, ValueError, IndexError, AttributeError):
        raise ValueError("the answer to CLUSTER SLOTS is not a map of slots") from None
    if any(not 0 <= one.first <= one.last < SLOTS for one in ranges):
        raise ValueError("the answer to CLUSTER SLOTS is not a map of slots")
    if len({one.primary for one in ranges}) > NODES_MAX:
        raise ValueError(f"the cluster has more than {NODES_MAX} primaries")
    return ranges


def parse_redirection(text: str, asked: str) -> tuple[int, Host]:
    """Slot and node of ``MOVED 3999 127.0.0.1:6381`` or ``ASK …``; ValueError for anything else."""
    words = text.split(" ")
    if len(words) < 3:
        raise ValueError("not a redirection")
    host, _, port = words[2].rpartition(":")
    slot = int(words[1])
    if not 0 <= slot < SLOTS:
        raise ValueError("not a slot")
    return slot, (_host(host.encode(), asked), int(port))


def _host(named: bytes | None, asked: str) -> str:
    """A node that does not know its own name says nothing or a question mark: it is where we reached it."""
    host = (named or b"").decode()
    return asked if host in {"", "?"} else host
