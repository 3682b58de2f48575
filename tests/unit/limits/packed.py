"""What a packed command says."""

from __future__ import annotations

import hiredis


def unpacked(packed: bytes) -> tuple[list[str], list[str]]:
    """The keys and arguments of a command that runs a script; it has to be a single whole command."""
    reader = hiredis.Reader()
    reader.feed(packed)
    name, sha, count, *words = [word.decode() for word in reader.gets()]
    assert (name, len(sha)) == ("EVALSHA", 40)
    assert not reader.has_data()
    return words[: int(count)], words[int(count) :]
