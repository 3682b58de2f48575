from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from app.core.clock import QUARTER_MS
from app.store.periods import offset_ms_of, offset_parts


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"])
def test_a_span_is_cut_where_the_offset_changes(zone):
    zone = ZoneInfo(zone)
    start, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1000 for year in (2025, 2027))
    parts = list(offset_parts(start, end, zone))
    assert parts[0][0] == start
    assert parts[-1][1] == end
    assert all(before[1] == after[0] for before, after in pairwise(parts))
    assert all(before[2] != after[2] for before, after in pairwise(parts))
    for low, high, offset in parts:
        for at_ms in range(low, high, QUARTER_MS * 4):
            assert offset_ms_of(at_ms, zone) == offset
        assert offset_ms_of(high - 1, zone) == offset


def test_an_empty_span_has_nooffset_parts():
    assert list(offset_parts(0, 0, UTC)) == []
