"""How long requests took, as counts in buckets."""

from __future__ import annotations

import random

import pytest

from app.store.timings import bucket_of, percentile_ms, timing_rows
from tests.contract.store.samples import NOON_MS, record_of


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_percentile_is_told_within_a_tenth(seed, share):
    chance = random.Random(seed)
    took_us = sorted(int(chance.lognormvariate(chance.uniform(5, 14), 0.7)) + 1 for _ in range(3000))
    buckets = {}
    for each in took_us:
        buckets[bucket_of(each)] = buckets.get(bucket_of(each), 0) + 1
    truth_ms = took_us[int(len(took_us) * share)] / 1000
    assert percentile_ms(buckets, share) == pytest.approx(truth_ms, rel=0.1, abs=0.001)


def test_of_nothing_there_is_no_percentile_and_zero_is_a_time():
    assert percentile_ms({}, 0.95) is None
    assert bucket_of(0) == bucket_of(1) == 0
    assert percentile_ms({0: 1}, 0.5) < 0.002


def test_requests_that_went_upstream_are_counted_by_what_is_known_of_them():
    quick = record_of("r1", first_byte_at_ms=NOON_MS + 100, own_us=700)
    rows = timing_rows(
        [
            quick,
            record_of("r2", first_byte_at_ms=NOON_MS + 100),
            record_of("r3", first_byte_at_ms=NOON_MS + 1, cache="hit", own_us=5),
            record_of("r4", first_byte_at_ms=NOON_MS - 5, team_id="a"),
            record_of("r5"),
        ]
    )
    place = (quick.quarter_ms, "team000001", "openai")
    assert rows == [
        # A clock that was put back makes nothing quicker than at once.
        (quick.quarter_ms, "a", "openai", "first_byte", 0, 1),
        (*place, "first_byte", bucket_of(100_000), 2),
        (*place, "overhead", bucket_of(700), 1),
    ]
