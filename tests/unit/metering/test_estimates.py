"""What is learnt of a key's requests, and how long the densest of them is remembered."""

from __future__ import annotations

from app.core.usage import Usage
from app.metering.estimates import Estimates


def test_one_dense_request_is_remembered_over_many_thin_ones():
    estimates = Estimates()
    for _ in range(50):
        estimates.learn("k", "m", 4000, Usage(input_tokens=800))
    estimates.learn("k", "m", 4000, Usage(input_tokens=1600))
    for _ in range(5):
        estimates.learn("k", "m", 4000, Usage(input_tokens=800))
    assert estimates.input_tokens("k", "m", 4000) < 1100
    assert estimates.input_tokens_high("k", "m", 4000) > 1350
    for _ in range(100):
        estimates.learn("k", "m", 4000, Usage(input_tokens=800))
    assert 800 <= estimates.input_tokens_high("k", "m", 4000) < 820


def test_before_much_is_learnt_the_high_figure_is_near_the_cold_one():
    estimates = Estimates()
    assert estimates.input_tokens_high("k", "m", 4000) == 2000
    estimates.learn("k", "m", 4000, Usage(input_tokens=500))
    assert estimates.input_tokens("k", "m", 4000) == 501
    assert estimates.input_tokens_high("k", "m", 4000) == 2001
