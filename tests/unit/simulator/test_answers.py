from __future__ import annotations

import pytest

from app.simulator.answers import answer, fact
from app.simulator.arithmetic import arithmetic_in
from app.simulator.conversation import Conversation, turn_of
from app.simulator.dice import Dice
from app.simulator.prompt import Prompt


def asked(*turns: tuple[str, str], previous: Conversation | None = None) -> Prompt:
    conversation = Conversation([turn_of(role, text) for role, text in turns], previous)
    question = conversation.last_of("user")
    return Prompt("sim-mini", conversation, question, question)


def said(*turns: tuple[str, str]) -> str:
    return answer(asked(*turns), Dice(b"seed"))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is 2+2?", "2 + 2 equals 4."),
        ("Calculate 100 * 200 / 3", "100 * 200 / 3 equals 6666.67."),
        ("7 - 2 * 3", "7 - 2 * 3 equals 1."),
        ("what is 1.5 + 1.5", "1.5 + 1.5 equals 3."),
        ("12 \u00d7 12 please", "12 \u00d7 12 equals 144."),
        ("1/0", "1 / 0 has no value: division by zero."),
    ],
)
def test_sums_are_computed(question, expected):
    assert arithmetic_in(question) == expected
    assert said(("user", question)) == expected


@pytest.mark.parametrize("question", ["On 2026-01-15 we met", "12/24/2026", "version-2", "a+b", "no digits"])
def test_what_is_no_sum_is_left_alone(question):
    assert arithmetic_in(question) is None


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("capital of the Netherlands", "The capital of Netherlands is Amsterdam."),
        ("Hello!", "Hello! How can I help you today?"),
        ('Reply with exactly "pong"', "pong"),
        ("Say 'this is a test'", "this is a test"),
    ],
)
def test_known_questions_have_known_answers(question, expected):
    assert said(("user", question)) == expected


def test_other_questions_are_quoted():
    assert "the tide comes in twice" in said(("user", "Why the tide comes in twice a day"))
    assert "In French" in said(("user", "Translate to French: good morning, world"))
    assert "good morning, world" in said(("user", "Translate to French: good morning, world"))
    assert "rain in Spain" in said(("user", "Summarise: rain in Spain stays mainly in the plain"))


def test_a_story_is_long_and_a_remark_is_short():
    assert len(said(("user", "Write a story about a lighthouse"))) > 1000
    assert len(said(("user", "I went home along the river"))) < 300


@pytest.mark.parametrize(
    ("statement", "question", "expected"),
    [
        ("My name is Ada.", "What is my name?", "Your name is Ada."),
        ("Hi, I'm Grace", "Who am I?", "Your name is Grace."),
        ("I am Linus and I write code", "what's my name?", "Your name is Linus."),
        ("My favourite colour is teal", "What is my favourite colour?", "Your favourite colour is teal."),
        ("nothing of note", "What is my name?", "You have not told me your name."),
    ],
)
def test_what_was_said_is_remembered(statement, question, expected):
    assert said(("user", statement), ("assistant", "Noted."), ("user", question)) == expected


def test_the_newest_statement_counts():
    assert (
        said(("user", "My name is Ada"), ("user", "My name is Bea"), ("user", "What is my name?"))
        == "Your name is Bea."
    )


def test_facts_are_found_in_the_conversation_before():
    before = Conversation([turn_of("user", "My name is Ada")])
    assert fact(asked(("user", "hm"), previous=before), "name") == "Ada"
    assert "Ada" in answer(asked(("user", "Tell me of ships"), previous=before), Dice(b"seed"))


def test_a_tools_answer_is_passed_on():
    turns = (("user", "weather?"), ("call", "get_weather({})"), ("tool", '{"celsius": 21}'))
    assert '{"celsius": 21}' in said(*turns)


def test_the_same_seed_gives_the_same_words():
    prompt = asked(("user", "Tell me of ships"))
    assert answer(prompt, Dice(b"a" * 32)) == answer(prompt, Dice(b"a" * 32))
    assert answer(prompt, Dice(b"a" * 32)) != answer(prompt, Dice(b"b" * 32))


def test_the_digest_is_of_the_turns_however_they_arrived():
    one = turn_of("user", "one")
    two = turn_of("assistant", "two")
    three = turn_of("user", "three")
    whole = Conversation([one, two, three])
    chained = Conversation([three], Conversation([two], Conversation([one])))
    assert whole.digest(b"") == chained.digest(b"")
    assert whole.tokens == chained.tokens
    assert list(whole.newest_first()) == list(chained.newest_first())
    assert whole.digest(b"") != Conversation([one, three]).digest(b"")
