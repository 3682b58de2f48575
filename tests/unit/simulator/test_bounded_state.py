from __future__ import annotations

from app.simulator.conversation import Conversation, turn_of
from app.simulator.log import ServedLog
from app.simulator.prefix_cache import PrefixCache
from app.simulator.response_store import ResponseStore, StoredResponse


def stored(text="x", previous=None):
    return StoredResponse(b"{}", Conversation([turn_of("user", text)], previous))


def test_the_store_keeps_the_most_recently_used():
    store = ResponseStore(responses_max=2)
    store.keep("a", stored())
    store.keep("b", stored())
    assert store.find("a") is not None
    store.keep("c", stored())
    assert store.find("b") is None
    assert store.find("a") is not None
    assert len(store) == 2


def test_the_store_is_bounded_by_bytes_of_whole_chains():
    store = ResponseStore(bytes_max=20_000)
    conversation = None
    for number in range(100):
        item = stored("y" * 1000, conversation)
        conversation = item.conversation
        store.keep(str(number), item)
    assert len(store) < 20
    assert store._bytes <= 20_000


def test_a_removed_or_replaced_response_gives_its_bytes_back():
    store = ResponseStore()
    store.keep("a", stored("z" * 100))
    store.keep("a", stored("z"))
    assert store.remove("a")
    assert not store.remove("a")
    assert store._bytes == 0
    assert "responses=0" in repr(store)


def test_the_log_keeps_the_last_entries_and_finds_them():
    log = ServedLog(entries_max=3)
    entries = [log.open(f"attempt {number}", "responses", number) for number in range(5)]
    entries[4].response_id = "resp_4"
    assert [entry.number for entry in log.find()] == [3, 4, 5]
    assert [entry.number for entry in log.find(since=1)] == [3, 4, 5]
    assert [entry.number for entry in log.find(since=4)] == [5]
    assert log.find(since=5) == log.find(since=99) == []
    assert log.find(wanted_id="attempt 3") == [entries[3]]
    assert log.find(wanted_id="resp_4") == [entries[4]]
    log.clear()
    assert len(log) == 0
    assert log.open("again", "responses", 0).number == 6


def test_an_entry_is_closed_once():
    served = ServedLog().open("a", "responses", 0)
    served.close("completed", 5)
    served.close("cut", 9)
    assert (served.outcome, served.ended_ms) == ("completed", 5)


def test_a_long_prefix_is_cached_the_second_time():
    cache = PrefixCache()
    prefix = "".join(f"word{number} " for number in range(2000))
    tokens = 5000
    assert cache.cached_tokens("m", prefix + "one question", tokens) == 0
    again = cache.cached_tokens("m", prefix + "another question", tokens)
    assert 4000 < again < tokens
    assert again % 128 == 0
    assert cache.cached_tokens("other model", prefix, tokens) == 0
    assert cache.cached_tokens("m", "different " + prefix, tokens) == 0


def test_the_prefix_cache_is_bounded():
    cache = PrefixCache(prefixes_max=10)
    for number in range(5):
        cache.cached_tokens("m", str(number) * 10_000, 2500)
    assert "prefixes=10/10" in repr(cache)
