"""Labels of a request: those of its key, and a client's own, ``x-headgate-tags: project=search,env=prod``."""

from __future__ import annotations

import re

from app.core.errors import InvalidRequest

TAGS_MAX = 16
_TAG = re.compile(r"([A-Za-z0-9_.-]{1,64})=([A-Za-z0-9_.:/@ -]{1,128})\Z")
_NO_TAGS: dict[str, str] = {}


def tags_of(header: bytes | None, own: dict[str, str] = _NO_TAGS) -> dict[str, str]:
    """The labels: those of the header, over which the key's ``own`` go, so that a client cannot shed these.

    Raises InvalidRequest with ``param`` where the header is not a list of them.
    """
    if not header:
        return own
    tags: dict[str, str] = {}
    for part in header.decode("latin-1").split(","):
        found = _TAG.match(part.strip())
        if found is None or len(tags) >= TAGS_MAX:
            raise InvalidRequest(
                f"x-headgate-tags must be up to {TAGS_MAX} pairs of name=value, separated by commas.",
                param="x-headgate-tags",
            )
        tags[found.group(1)] = found.group(2)
    return {**tags, **own} if own else tags
