"""The endpoints beside the conversations that cost: pictures, sound, film, and text that goes on from text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.simulator.resources.audio import Audio
from app.simulator.resources.images import Images
from app.simulator.resources.legacy_completions import LegacyCompletions
from app.simulator.resources.videos import Videos

if TYPE_CHECKING:
    from app.simulator.exchange import Endpoint
    from app.simulator.generate import Generator
    from app.simulator.resources.kinds import Kept


def media_endpoints(generator: Generator, kept: Kept) -> dict[str, tuple[str, Endpoint]]:
    """By path: the name in the log, and what prepares an answer."""
    images, audio = Images(generator), Audio(generator)
    return {
        "/completions": ("completions", LegacyCompletions(generator).complete),
        "/images/generations": ("images.generations", images.generate),
        "/images/edits": ("images.edits", images.edit),
        "/images/variations": ("images.variations", images.vary),
        "/audio/transcriptions": ("audio.transcriptions", audio.transcribe),
        "/audio/translations": ("audio.translations", audio.translate),
        "/audio/speech": ("audio.speech", audio.speak),
        "/videos": ("videos", Videos(generator, kept.tables).create),
    }
