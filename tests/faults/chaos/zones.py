"""A time zone whose midnight is the next quarter of an hour, so that a day ends while somebody watches."""

from __future__ import annotations

import struct
import time
from pathlib import Path

QUARTER_S = 900
DAY_S = 86_400
NAME = "Chaos/Midnight"


def next_midnight_s(now_s: float | None = None) -> int:
    """Seconds since 1970: the next quarter of an hour, since windows begin on one in every real zone."""
    now_s = time.time() if now_s is None else now_s
    return (int(now_s) // QUARTER_S + 1) * QUARTER_S


def write_zone(folder: Path, midnight_s: int) -> str:
    """Writes a zone in which it is midnight then, to be found by way of PYTHONTZPATH; returns its name."""
    offset_s = -midnight_s % DAY_S
    if offset_s >= DAY_S // 2:
        offset_s -= DAY_S
    # TZif, version 1: one type of local time and no transition.
    header = b"TZif" + b"\0" * 16 + struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    path = folder / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + struct.pack(">lbb", offset_s, 0, 0) + b"CHS\0")
    return NAME
