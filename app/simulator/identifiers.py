"""Random ids. They are no secrets: a system call for each would cost more than the rest of a small answer."""

from __future__ import annotations

from random import Random

_random = Random()  # noqa: S311 - see above; seeded by the system once per process


def random_hex(chars: int) -> str:
    """``chars`` hexadecimal digits."""
    return f"{_random.getrandbits(4 * chars):0{chars}x}"


def random_bytes(size: int) -> bytes:
    """``size`` bytes."""
    return _random.randbytes(size)


def new_request_id() -> bytes:
    """What a provider's support would ask for."""
    return f"req_{random_hex(32)}".encode()
