"""Texts on their way into a spreadsheet, which takes what begins with ``=`` for a formula.

A reader that parts cells at a semicolon, a tab or a bar, as Excel does in half of Europe, does not heed quotes inside
of what it takes for a cell: so a formula behind one of those, or on a new line, is guarded too.
"""

from __future__ import annotations

import re

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are the wide forms, which spreadsheets of East Asian languages take for the same."""

SEPARATORS = ";|\t"
"""What parts cells elsewhere than in RFC 4180: a cell that holds one is quoted."""

_FORMULA = re.compile(r"""((?:^|[;|\t\r\n])[\s"]*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])""")
"""Quotes and blanks before it are skipped: to such a reader they may be what opens the cell."""


def guarded(text: str) -> str:
    """``text`` with an apostrophe before all of it that would be a formula."""
    if text.startswith(FORMULA_STARTS):
        text = f"'{text}"
    return _FORMULA.sub(r"\1'", text)
