"""How often an address may be wrong."""

from __future__ import annotations

import pytest

from app.auth.throttle import FailureThrottle


class Still:
    """A clock that stands."""

    def now_ms(self):
        return 1_000


@pytest.mark.parametrize(
    ("addresses", "is_one"),
    [
        (("203.0.113.1", "203.0.113.2"), False),
        (("2001:db8::1", "2001:db8::ffff:1"), True),
        (("2001:db8:0:1::1", "2001:db8:0:2::1"), False),
        (("::ffff:203.0.113.1", "203.0.113.1"), True),
        (("::ffff:203.0.113.1", "::ffff:203.0.113.2"), False),
        (("not:an:address", "not:another"), False),
    ],
)
def test_of_ipv6_a_whole_network_is_one(addresses, is_one):
    throttle = FailureThrottle(Still(), per_minute=3)
    first, second = addresses
    assert [throttle.failed(first) for _ in range(4)] == [False, False, False, True]
    assert throttle.is_over(first)
    assert throttle.is_over(second) is is_one
    assert throttle.failed(second) is is_one
