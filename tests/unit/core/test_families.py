"""What is given to a key or a team, and what is on by it."""

from __future__ import annotations

import pytest

from app.core.families import families_of, families_on

KNOWN = ("chat", "models", "files", "batches")
DEFAULT = frozenset(("chat", "models"))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["files"], ("files",)),
        (["files", "chat", "files"], ("files", "chat")),
        (["*"], ("*",)),
        (["files", "*", "chat"], ("*",)),
        ([], ()),
    ],
)
def test_each_is_given_once_and_everything_alone(given, kept):
    assert families_of(given, KNOWN) == kept


@pytest.mark.parametrize("given", [["file"], ["*", "file"], ["Files"], ["**"]])
def test_what_is_no_family_is_refused_with_all_there_are(given):
    with pytest.raises(ValueError, match=r"is none of chat, models, files, batches$"):
        families_of(given, KNOWN)


@pytest.mark.parametrize(
    ("given", "on"),
    [
        (None, ("chat", "models")),
        (("batches", "chat"), ("chat", "batches")),
        ((), ()),
        (("*",), (*KNOWN, "*")),
        (("gone", "files"), ("files",)),
    ],
)
def test_what_is_on(given, on):
    assert families_on(given, KNOWN, DEFAULT) == on
