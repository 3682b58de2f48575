"""What an upstream says of when to come back, and what becomes of what is absurd."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from app.upstream.retry_after import retry_after_s, sensible

NOW_S = 1_795_000_000.0


def date(in_s: float) -> bytes:
    return formatdate(NOW_S + in_s, usegmt=True).encode()


@pytest.mark.parametrize(
    ("name", "value", "seconds", "told"),
    [
        (b"retry-after", b"7", 7, None),
        (b"retry-after", b"0", 0, None),
        (b"retry-after", b"1.5", 1.5, None),
        (b"retry-after", b"120", 120, None),
        (b"retry-after", b"121", 120, b"120"),
        (b"retry-after", b"1000000000", 120, b"120"),
        (b"retry-after", b"9" * 300, 120, b"120"),
        (b"retry-after", b"-5", 0, b"0"),
        (b"retry-after-ms", b"1500", 1.5, None),
        (b"retry-after-ms", b"99999999", 120, b"120000"),
        (b"retry-after-ms", b"-1", 0, b"0"),
        (b"retry-after", date(30), 30, None),
        (b"retry-after", date(-30), 0, None),
        (b"retry-after", date(1_000_000), 120, b"120"),
        (b"retry-after", b"soon", None, None),
        (b"retry-after", b"", None, None),
        (b"retry-after", b"inf", None, None),
        (b"retry-after", b"nan", None, None),
        (b"retry-after", b"1e9", None, None),
        (b"retry-after", b"\xb2", None, None),
        (b"retry-after-ms", date(30), None, None),
    ],
)
def test_each_form(name, value, seconds, told):
    headers = [(b"x", b"y"), (name, value)]
    assert retry_after_s(headers, NOW_S) == pytest.approx(seconds)
    assert sensible(headers, NOW_S) == [(b"x", b"y"), (name, value if told is None else told)]


def test_the_finer_of_two_holds():
    assert retry_after_s([(b"retry-after", b"2"), (b"retry-after-ms", b"1250")]) == 1.25
    assert retry_after_s([(b"retry-after", b"2"), (b"retry-after-ms", b"?")]) == 2
    assert retry_after_s([(b"content-type", b"2")]) is None
