from __future__ import annotations

import random

import pytest

from app.simulator.tokens import count_tokens, pieces_of, tokens_of_word

TEXTS = [
    "",
    "The capital of France is Paris.",
    '{"country":"France","list":[1,2,3]}',
    "  two  spaces\n\n\tand\r\nlines   ",
    "日本語のテキスト and émojis 🎉🎉🎉 Привет",
    "x" * 1000,
    "a.b.c.d",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_are_the_text(text):
    assert "".join(pieces_of(text)) == text
    assert count_tokens(text) == len(pieces_of(text))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_cut_between_pieces_has_the_pieces_before_the_cut(text):
    pieces = pieces_of(text)
    for length in range(len(pieces)):
        assert pieces_of("".join(pieces[:length])) == pieces[:length]


def test_random_texts_are_covered():
    source = random.Random(7)
    alphabet = "ab Z09.,;{}\"'\n\t é日🎉_-"
    for _ in range(300):
        text = "".join(source.choice(alphabet) for _ in range(source.randrange(60)))
        assert "".join(pieces_of(text)) == text


def test_english_has_about_four_bytes_to_a_token():
    text = "It was the best of times, it was the worst of times, it was the age of wisdom and of foolishness. " * 5
    assert 3.5 < len(text.encode()) / count_tokens(text) < 5


@pytest.mark.parametrize("chars", [1, 2, 6, 7, 8, 13, 14, 500])
def test_a_long_word_is_counted_without_being_made(chars):
    assert tokens_of_word(chars) == count_tokens(f" {'x' * (chars - 1)}")


def test_texts_too_long_to_remember_are_counted_alike():
    assert count_tokens("word " * 5000) == len(pieces_of("word " * 5000))
