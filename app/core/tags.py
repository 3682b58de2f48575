"""A client's own labels for a request: ``x-headgate-tags: project=search,env=prod``."""

from __future__ import annotations

import re

from app.core.errors import InvalidRequest

TAGS_MAX = 16
_TAG = re.compile(r"([A-Za-z0-9_.-]{1,64})=([A-Za-z0-9_.:/@ -]{1,128})\Z")
_NO_TAGS: dict[str, str] = {}


def tags_of(header: bytes | None) -> dict[str, str]:
    """The labels. Raises InvalidRequest with ``param`` where the header is not a list of them."""
    if not header:
        return _NO_TAGS
    tags: dict[str, str] = {}
    for part in header.decode("latin-1").split(","):
        found = _TAG.match(part.strip())
        if found is None or len(tags) >= TAGS_MAX:
            raise InvalidRequest(
                f"x-headgate-tags must be up to {TAGS_MAX} pairs of name=value, separated by commas.",
                param="x-headgate-tags",
            )
        tags[found.group(1)] = found.group(2)
    return tags
