"""What is learnt of a key's requests, and how long the densest of them is remembered."""

from __future__ import annotations

from app.core.peek import Extent
from app.core.usage import Usage
from app.metering.estimates import Ask, Estimates, certain_tokens

TEXT = Ask(4000, None, follows_stored=False)


def test_one_dense_request_is_remembered_over_many_thin_ones():
    estimates = Estimates()
    for _ in range(50):
        estimates.learn("k", "m", TEXT, Usage(input_tokens=800))
    estimates.learn("k", "m", TEXT, Usage(input_tokens=1600))
    for _ in range(5):
        estimates.learn("k", "m", TEXT, Usage(input_tokens=800))
    assert estimates.input_tokens("k", "m", TEXT) < 1100
    assert estimates.input_tokens_high("k", "m", 4000) > 1350
    for _ in range(100):
        estimates.learn("k", "m", TEXT, Usage(input_tokens=800))
    assert 800 <= estimates.input_tokens_high("k", "m", 4000) < 820


def test_before_much_is_learnt_the_high_figure_is_near_the_cold_one():
    estimates = Estimates()
    assert estimates.input_tokens_high("k", "m", 4000) == 2000
    estimates.learn("k", "m", TEXT, Usage(input_tokens=500))
    assert estimates.input_tokens("k", "m", TEXT) == 501
    assert estimates.input_tokens_high("k", "m", 4000) == 2001


CHAINED = Ask(300, None, follows_stored=True)
PICTURED = Ask(100_000, None, follows_stored=False, extent=Extent(images=1))


def test_what_is_not_in_the_body_says_nothing_of_the_text_that_is():
    estimates = Estimates()
    for _ in range(5):
        estimates.learn("k", "m", CHAINED, Usage(input_tokens=50_000))
        estimates.learn("k", "m", PICTURED, Usage(input_tokens=1_000))
    assert estimates.input_tokens("k", "m", TEXT) == 2000
    assert estimates.input_tokens_high("k", "m", 4000) == 2000
    assert estimates.input_tokens("other", "m", CHAINED) == 150


def test_requests_of_which_not_all_is_seen_are_like_those_before_them():
    estimates = Estimates()
    for _ in range(30):
        estimates.learn("k", "m", CHAINED, Usage(input_tokens=50_000))
    assert 45_000 < estimates.input_tokens("k", "m", CHAINED) < 51_000


def test_only_what_a_request_says_of_itself_is_certain():
    assert certain_tokens(TEXT) == 516
    assert certain_tokens(Ask(4000, 100, follows_stored=False, many=3)) == 800
    assert certain_tokens(CHAINED) == certain_tokens(PICTURED) == 16
    assert certain_tokens(Ask(800, 0, follows_stored=False)) == 100


def test_what_is_to_have_no_output_teaches_none():
    estimates, fresh = Estimates(), Estimates()
    estimates.learn("k", "m", Ask(4000, 0, follows_stored=False), Usage(input_tokens=1000))
    fresh.learn("k", "m", TEXT, Usage(input_tokens=1000, output_tokens=1024))
    assert estimates.likely_tokens("k", "m", TEXT) == fresh.likely_tokens("k", "m", TEXT)
    fresh.learn("k", "m", Ask(4000, 0, follows_stored=False), Usage(input_tokens=1000))
    assert estimates.likely_tokens("k", "m", TEXT) == fresh.likely_tokens("k", "m", TEXT)
