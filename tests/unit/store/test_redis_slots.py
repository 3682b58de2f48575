"""Slots of keys, and what a cluster says about them."""

from __future__ import annotations

import pytest

from app.store.redis.slots import SlotRange, hash_tag, parse_redirection, parse_slots, slot_of, slot_of_all


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        ("plain", "plain"),
        ("hg:{T8fk2mQp1x}:own:resp_abc", "T8fk2mQp1x"),
        ("{a}{b}", "a"),
        ("{}{b}", "{}{b}"),
        ("{open", "{open"),
        ("}{", "}{"),
        ("}{a}", "a"),
        ("{{a}}", "{a"),
        ("", ""),
    ],
)
def test_the_text_between_the_first_braces_decides(key: str, tag: str) -> None:
    assert hash_tag(key) == tag
    assert slot_of(key) == slot_of(tag) or tag != key


@pytest.mark.parametrize(
    ("key", "slot"),
    # From the documentation of CLUSTER KEYSLOT and of the checksum: the servers have the last word in the contract tests.
    [("somekey", 11058), ("foo{hash_tag}", 2515), ("bar{hash_tag}", 2515), ("123456789", 0x31C3)],
)
def test_slots_are_those_that_servers_compute(key: str, slot: int) -> None:
    assert slot_of(key) == slot


def test_keys_of_one_script_share_a_tag() -> None:
    assert slot_of_all(["hg:{a}:1", "hg:{a}:2", "{a}"]) == slot_of("a")
    assert slot_of_all(["same", "same"]) == slot_of("same")
    for keys in ([], ["{a}", "{b}"], ["{a}:1", "a2"]):
        with pytest.raises(ValueError, match="key"):
            slot_of_all(keys)


def test_a_map_names_the_primary_of_each_range() -> None:
    answer = [
        [0, 5460, [b"10.0.0.1", 7000, b"id", []], [b"10.0.0.2", 7001, b"id", []]],
        [5461, 16383, [b"", 7002, b"id"]],
        [16383, 16383, [None, 7003, b"id", [b"hostname", b"x"]]],
        [7, 7, [b"?", 7004]],
    ]
    assert parse_slots(answer, "asked") == [
        SlotRange(0, 5460, ("10.0.0.1", 7000)),
        SlotRange(5461, 16383, ("asked", 7002)),
        SlotRange(16383, 16383, ("asked", 7003)),
        SlotRange(7, 7, ("asked", 7004)),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        *(None, [], b"text", 5, [[]], [[0, 1]], [[0, 1, b"x"]], [[0, 1, []]], [[0, 1, [b"h", b"port"]]]),
        *([[5, 1, [b"h", 1]]], [[0, 16384, [b"h", 1]]], [[-1, 3, [b"h", 1]]], [[0, 1, [b"\xff", 1]]]),
        [[n, n, [b"h", n]] for n in range(1001)],
    ],
)
def test_what_is_no_map_is_refused(answer: object) -> None:
    with pytest.raises(ValueError, match=r"cluster|CLUSTER SLOTS"):
        parse_slots(answer, "asked")


def test_redirections_name_slot_and_node() -> None:
    assert parse_redirection("MOVED 3999 127.0.0.1:6381", "asked") == (3999, ("127.0.0.1", 6381))
    assert parse_redirection("ASK 3999 ::1:6381", "asked") == (3999, ("::1", 6381))
    assert parse_redirection("MOVED 3999 :6381", "asked") == (3999, ("asked", 6381))
    for text in ("MOVED", "MOVED 1", "MOVED x h:1", "MOVED 1 h", "MOVED 16384 h:1", "MOVED 1 h:port"):
        with pytest.raises(ValueError):
            parse_redirection(text, "asked")
