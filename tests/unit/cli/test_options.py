"""How the texts of options are read."""

from __future__ import annotations

import pytest
import typer
from msgspec import UNSET

from app.cli.options import endpoints_of
from app.edge.endpoints import FAMILIES


@pytest.mark.parametrize(
    ("text", "families"),
    [
        (None, UNSET),
        ("default", None),
        (" Default ", None),
        ("all", None),
        ("files", ("files",)),
        (" files , batches,files,", ("files", "batches")),
        ("*", ("*",)),
        ("files,*", ("*",)),
    ],
)
def test_families_are_read(text, families):
    assert endpoints_of(text) == families


@pytest.mark.parametrize("text", ["file", "files,file", "*,file", "files default"])
def test_what_is_no_family_is_refused_with_all_that_may_be_given(text):
    with pytest.raises(typer.BadParameter) as refused:
        endpoints_of(text)
    assert refused.value.message.endswith(f" is none of {', '.join(FAMILIES)}, *, default")


@pytest.mark.parametrize("text", ["", " ", ",,"])
def test_a_list_of_nothing_is_refused(text):
    with pytest.raises(typer.BadParameter, match="empty"):
        endpoints_of(text)
