"""What the simulator says: a function of the visible conversation and the seed.

A few kinds of question are answered sensibly (what was said before, arithmetic, capitals), since
examples and demonstrations ask them. Everything else gets sentences that quote the question.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from app.simulator.arithmetic import arithmetic_in
from app.simulator.steering import without_directives

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.simulator.dice import Dice
    from app.simulator.prompt import Prompt

QUESTION_CHARS_MAX = 4000
"""How much of a text is searched for facts and names; the rest costs tokens only."""
ENDS_CHARS = 200
"""What is asked stands at the beginning or at the end; looking through the middle is not worth its time."""
LONG_SENTENCES = 28
SHORT_SENTENCES = 2

_FACT = re.compile(r"\bmy ([a-z][a-z ]{0,40}?) (?:is|are) (?:called )?([^\n.!?,;]{1,80})", re.IGNORECASE)
_NAME = re.compile(r"\b(?:[Ii] am|[Ii]'m|[Cc]all me) ([A-Z][\w'-]{1,40})")
_NAME_OPENINGS = ("i am ", "i'm ", "call me ")
_RECALL = re.compile(
    r"\b(?:what(?:'s| is| was| are)|tell me|say|remember|do you know|who is)\s+(?:again\s+)?my ([a-z][a-z ]{0,40}?)"
    r"\s*(?:\?|$|\.|,| again| i )",
    re.IGNORECASE,
)
_WHO_AM_I = re.compile(r"\b(?:who am i|what am i called)\b", re.IGNORECASE)
_ECHO = re.compile(
    r"\b(?:say|repeat|reply with|respond with|answer with|output)(?: exactly| only| just)?(?: the words?)?:?\s+"
    r"[\"“'`]([^\"”'`]{1,400})[\"”'`]",
    re.IGNORECASE,
)
_CAPITAL = re.compile(
    r"\bcapital (?:city )?of (?:the )?([a-z][a-z ]{2,30}?)\s*(?:\?|\.|,|!|$| and | in | is )", re.IGNORECASE
)
_TRANSLATE = re.compile(r"\btranslate\b.{0,200}?\b(?:in)?to ([A-Z][a-z]+)", re.IGNORECASE | re.DOTALL)
_SUMMARISE = re.compile(r"\b(?:summari[sz]e|summary|tl;?dr)\b", re.IGNORECASE)
_GREETING = re.compile(
    r"\s*(?:hi|hello|hey|good (?:morning|evening|afternoon))\b[^a-z]*(?:there)?[^a-z]*$", re.IGNORECASE
)
_LONG_WORDS = (
    "story",
    "essay",
    "in detail",
    "detailed",
    "long",
    "article",
    "comprehensive",
    "step by step",
    "500 words",
)
_LONG = re.compile(rf"\b(?:{'|'.join(_LONG_WORDS)})\b", re.IGNORECASE)

CAPITALS = {
    "argentina": "Buenos Aires", "australia": "Canberra", "austria": "Vienna", "belgium": "Brussels",
    "brazil": "Brasília", "canada": "Ottawa", "chile": "Santiago", "china": "Beijing", "colombia": "Bogotá",
    "czech republic": "Prague", "denmark": "Copenhagen", "egypt": "Cairo", "england": "London",
    "finland": "Helsinki", "france": "Paris", "germany": "Berlin", "greece": "Athens", "hungary": "Budapest",
    "india": "New Delhi", "indonesia": "Jakarta", "ireland": "Dublin", "italy": "Rome", "japan": "Tokyo",
    "kenya": "Nairobi", "mexico": "Mexico City", "morocco": "Rabat", "netherlands": "Amsterdam",
    "new zealand": "Wellington", "nigeria": "Abuja", "norway": "Oslo", "peru": "Lima", "poland": "Warsaw",
    "portugal": "Lisbon", "romania": "Bucharest", "south korea": "Seoul", "spain": "Madrid",
    "sweden": "Stockholm", "switzerland": "Bern", "thailand": "Bangkok", "turkey": "Ankara",
    "ukraine": "Kyiv", "united kingdom": "London", "united states": "Washington, D.C.", "uk": "London",
    "usa": "Washington, D.C.", "vietnam": "Hanoi",
}  # fmt: skip

_OPENERS = (
    "In short,", "In practice,", "As a rule,", "Seen from here,", "Most of the time,", "At its core,", "To begin with,",
    "On balance,", "In a word,", "Looking closer,", "Put plainly,", "By and large,", "In the end,", "Day by day,",
    "Over time,", "Step by step,",
)  # fmt: skip
_SUBJECTS = (
    "a careful plan", "the quiet river", "a small team", "the first draft", "a steady habit", "the open gate",
    "a clear question", "the long view", "a simple measure", "the old map", "a patient reader", "the next step",
    "a shared record", "the plain answer", "a good example", "the working model",
)  # fmt: skip
_VERBS = (
    "shows", "keeps", "changes", "carries", "explains", "supports", "measures", "shapes", "settles", "opens", "follows",
    "protects", "improves", "connects", "reveals", "balances",
)  # fmt: skip
_OBJECTS = (
    "what matters most", "the way forward", "more than it seems", "the work at hand", "a lasting result",
    "the weight of detail", "what people expect", "the cost of delay", "a fair comparison", "the flow of things",
    "room for doubt", "the shape of the whole", "what was promised", "a better outcome", "the limits of the method",
    "the rest of the story",
)  # fmt: skip

REFUSAL = "I'm sorry, but I can't help with that."


def answer(prompt: Prompt, dice: Dice) -> str:
    """The text that answers ``prompt``."""
    tool_said = _said_by_tool(prompt)
    if tool_said is not None:
        return tool_said
    question = prompt.question
    if len(question) > 2 * ENDS_CHARS:
        question = f"{question[:ENDS_CHARS]}\n{question[-ENDS_CHARS:]}"
    for kind in _KINDS:
        text = kind(question, prompt)
        if text is not None:
            return text
    return _essay(question, prompt, dice)


def sentence(dice: Dice) -> str:
    """One sentence about nothing."""
    return f"{dice.choose(_OPENERS)} {dice.choose(_SUBJECTS)} {dice.choose(_VERBS)} {dice.choose(_OBJECTS)}."


def first_words(text: str, words_max: int) -> str:
    """The first words of ``text``, on one line."""
    words = text[: words_max * 24].split()
    cut = " ".join(words[:words_max])
    return cut if len(words) <= words_max and len(text) <= words_max * 24 else f"{cut} …"


def _said_by_tool(prompt: Prompt) -> str | None:
    turns = prompt.conversation.turns
    if not turns or turns[-1].role != "tool":
        return None
    return f"The tool answered: {first_words(turns[-1].text, 40)}"


def _echoed(question: str, _prompt: Prompt) -> str | None:
    found = _ECHO.search(question) if '"' in question or "'" in question or "“" in question or "`" in question else None
    return found[1] if found else None


def _recalled(question: str, prompt: Prompt) -> str | None:
    """What was said of "my X" anywhere in the conversation: the newest statement counts."""
    if "am i" in question.lower() and _WHO_AM_I.search(question):
        wanted = "name"
    elif "my " in question and (found := _RECALL.search(question)):
        wanted = found[1].lower().strip()
    else:
        return None
    value = fact(prompt, wanted)
    if value is None:
        return f"You have not told me your {wanted}."
    return f"Your {wanted} is {value}."


def fact(prompt: Prompt, wanted: str) -> str | None:
    """What a user turn said of "my ``wanted``", if any did."""
    for turn in prompt.conversation.newest_first():
        if turn.role != "user":
            continue
        text = without_directives(turn.text[:QUESTION_CHARS_MAX])
        stated = _stated(text, wanted)
        if stated:
            return stated[-1].strip()
    return None


def _stated(text: str, wanted: str) -> list[str]:
    """Every value that ``text`` gives to "my ``wanted``"."""
    lowered = text.lower()
    stated = []
    if "my " in lowered:
        stated = [value for key, value in _FACT.findall(text) if key.lower().strip() == wanted]
    if not stated and wanted == "name" and any(opening in lowered for opening in _NAME_OPENINGS):
        stated = _NAME.findall(text)
    return stated


def _noted(question: str, _prompt: Prompt) -> str | None:
    """The answer to a statement of a fact and nothing else."""
    if "?" in question or "y " not in question or len(question) > 200:
        return None
    found = _FACT.search(question)
    if found is None:
        return None
    key, value = found[1].strip(), found[2].strip()
    if key.lower() == "name":
        return f"Nice to meet you, {value}. I will remember your name."
    return f"Noted: your {key} is {value}."


def _computed(question: str, _prompt: Prompt) -> str | None:
    return arithmetic_in(question)


def _capital(question: str, _prompt: Prompt) -> str | None:
    found = _CAPITAL.search(question) if "apital" in question else None
    if found is None:
        return None
    country = found[1].lower().strip()
    capital = CAPITALS.get(country)
    return f"The capital of {found[1].strip().title()} is {capital}." if capital else None


def _translated(question: str, _prompt: Prompt) -> str | None:
    found = _TRANSLATE.search(question) if "ranslate" in question else None
    if found is None:
        return None
    _, colon, rest = question.partition(":")
    text = rest if colon else question[found.end() :] or question
    return f"In {found[1].title()}, “{first_words(text.strip(), 12)}” would be said in much the same words."


def _summarised(question: str, _prompt: Prompt) -> str | None:
    lowered = question.lower()
    found = _SUMMARISE.search(question) if "summar" in lowered or "dr" in lowered else None
    if found is None:
        return None
    text = question[found.end() :].lstrip(" :\n") or question
    return f"In summary, the text says “{first_words(text, 12)}” and goes on in the same sense."


def _greeted(question: str, _prompt: Prompt) -> str | None:
    return "Hello! How can I help you today?" if len(question) < 40 and _GREETING.match(question) else None


def _essay(question: str, prompt: Prompt, dice: Dice) -> str:
    quoted = first_words(question, 8)
    parts = [f"On “{quoted}”:"] if quoted else []
    if prompt.conversation.previous is not None or len(prompt.conversation.turns) > 1:
        parts.extend(_remembered(prompt))
    sentences = LONG_SENTENCES if _wants_length(question) else SHORT_SENTENCES
    parts.extend(sentence(dice) for _ in range(sentences))
    return " ".join(parts)


def _wants_length(question: str) -> bool:
    # Plain searches first: they take a fiftieth of the time and mostly find nothing.
    lowered = question.lower()
    return any(word in lowered for word in _LONG_WORDS) and _LONG.search(question) is not None


def _remembered(prompt: Prompt) -> list[str]:
    """Signs that the earlier turns were seen."""
    parts: list[str] = []
    name = fact(prompt, "name")
    if name is not None:
        parts.append(f"Since your name is {name}, this is for you.")
    questions = (turn.text for turn in prompt.conversation.newest_first() if turn.role == "user")
    next(questions, None)
    earlier = next(questions, None)
    if earlier is not None:
        parts.append(f"Earlier you said “{first_words(without_directives(earlier), 8)}”.")
    return parts


_KINDS: tuple[Callable[[str, Prompt], str | None], ...] = (
    _echoed,
    _recalled,
    _noted,
    _computed,
    _capital,
    _translated,
    _summarised,
    _greeted,
)
