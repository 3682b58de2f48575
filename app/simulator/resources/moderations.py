"""``POST /moderations``: costs nothing, so that the log has nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.simulator.errors import refuse_missing
from app.simulator.identifiers import random_hex
from app.simulator.routes import Reply, json_reply

if TYPE_CHECKING:
    from app.simulator.routes import Request

CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
VIOLENT_WORDS = ("kill", "murder", "attack")


async def moderate(request: Request) -> Reply:
    """Violence is found by a few words; nothing else is."""
    members = await request.members()
    given = members.get("input")
    if not given:
        refuse_missing("input")
    inputs = given if isinstance(given, list) and all(isinstance(text, str) for text in given) else [given]
    model = members.get("model") or "omni-moderation-latest"
    results = [_result(str(text).lower()) for text in inputs]
    return json_reply({"id": f"modr-{random_hex(32)}", "model": model, "results": results})


def _result(text: str) -> dict[str, Any]:
    flagged = any(word in text for word in VIOLENT_WORDS)
    return {
        "flagged": flagged,
        "categories": {name: flagged and name == "violence" for name in CATEGORIES},
        "category_scores": {name: 0.9 if flagged and name == "violence" else 0.0001 for name in CATEGORIES},
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
