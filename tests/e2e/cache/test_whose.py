"""Whose answer it is: of the team by default, of the key or of everybody by configuration, and never of another's."""

from __future__ import annotations

import itertools

import pytest

from tests.e2e.cache.sites import body_of, word
from tests.e2e.cache.wire import CHAT, RESPONSES
from tests.e2e.doors import SHARED
from tests.fakes.fleet import wait_for

KINDS = [
    pytest.param(path, stream, id=f"{path.rpartition('/')[2]}-{'stream' if stream else 'json'}")
    for path in (RESPONSES, CHAT)
    for stream in (False, True)
]


@pytest.mark.parametrize(("path", "stream"), KINDS)
def test_two_teams_that_ask_one_after_the_other_make_a_call_each(site, path, stream):
    one, other = site.key(), site.key()
    text = f"Say {word()}."
    with site.calls() as calls:
        first = [site.ask(each, text, path=path, stream=stream) for each in (one, other)]
    assert [told.cache for told in first] == ["miss", "miss"]
    assert len(calls) == 2
    assert all(site.is_own(told) for told in first)
    with site.calls() as calls:
        again = [site.ask(each, text, path=path, stream=stream) for each in (one, other)]
    assert [told.cache for told in again] == ["hit", "hit"]
    assert calls == []
    assert [told.body for told in again] == [told.body for told in first]
    assert first[0].id != first[1].id


@pytest.mark.parametrize(("path", "stream"), KINDS)
def test_two_teams_that_ask_at_the_same_time_make_a_call_each(site, path, stream):
    keys = [site.key(), site.key()]
    body = body_of(f"[[sim: first_ms=400]] Say {word()}.", path=path, stream=stream)
    with site.calls() as calls:
        told = site.ask_at_once(*((each, body) for each in keys * 3), path=path)
    assert len(calls) == 2
    assert calls[1].started_ms < calls[0].ended_ms, "the calls ran at the same time"
    assert sorted(one.cache for one in told) == ["joined"] * 4 + ["miss"] * 2
    for team in (told[0::2], told[1::2]):
        assert len({one.body for one in team}) == 1
        assert [site.is_own(one) for one in team].count(True) == 1
    assert told[0].id != told[1].id


def test_a_key_of_the_same_team_is_told_the_teams_answer(site, key):
    colleague = site.key(team_id=key.team_id)
    text = f"Say {word()}."
    first = site.ask(key, text)
    second = site.ask(colleague, text)
    assert (first.cache, second.cache) == ("miss", "hit")
    assert second.body == first.body


def test_scope_key_keeps_the_keys_of_a_team_apart(site, key):
    colleague = site.key(team_id=key.team_id)
    text = f"Say {word()}."
    with site.calls() as calls:
        told = [site.ask(each, text, model="own-model") for each in (key, colleague, key, colleague)]
    assert [one.cache for one in told] == ["miss", "miss", "hit", "hit"]
    assert len(calls) == 2
    assert [one.id for one in told] == [told[0].id, told[1].id] * 2
    assert told[0].id != told[1].id


def test_scope_global_shares_with_every_team_and_bills_each_its_own(site, key):
    stranger = site.key()
    text = f"Say {word()}."
    with site.calls() as calls:
        told = [site.ask(each, text, model="global-model") for each in (key, stranger)]
    assert [one.cache for one in told] == ["miss", "hit"]
    assert len(calls) == 1
    assert told[1].body == told[0].body
    (paid,), (spared,) = site.records(key, 1), site.records(stranger, 1)
    assert (paid["cache"], spared["cache"]) == ("miss", "hit")
    assert spared["team_id"] == stranger.team_id
    assert spared["saved_nanousd"] > paid["saved_nanousd"] == 0


def test_what_is_stored_at_the_provider_is_not_shared_with_every_team(site, key):
    """Whoever is given an id must be able to use it, and only the team that made it can."""
    stranger = site.key()
    text = f"Say {word()}."
    with site.calls() as calls:
        told = [site.ask(each, text, model="global-model", store=True) for each in (key, stranger)]
    assert [one.cache for one in told] == ["bypass", "bypass"]
    assert told[0].detail == 'fwd=bypass; detail="store"'
    assert len(calls) == 2
    assert site.ask(stranger, "go on", previous_response_id=told[0].id, store=True).status == 404
    assert site.ask(key, "go on", previous_response_id=told[0].id, store=True).status == 200


# -- values that were put where they do not belong --------------------------------------------


class Values:
    """The cache's part of a Redis."""

    def __init__(self, site) -> None:
        self._execute = site.stores.valkey.execute

    def keys(self) -> set[str]:
        """Of all answers that are kept."""
        found: set[str] = set()
        cursor = 0
        while True:
            after, some = self._execute("SCAN", cursor, "MATCH", "hg:cache:*", "COUNT", 1000)
            found.update(key.decode() for key in some)
            cursor = int(after)
            if not cursor:
                return {key for key in found if not key.endswith(":lease")}

    def get(self, key: str) -> bytes:
        return self._execute("GET", key)

    def put(self, key: str, value: bytes) -> None:
        self._execute("SET", key, value, "PX", 60_000)


def form_of(key: str) -> str:
    return key.rpartition(":")[2]


@pytest.mark.parametrize("site", [SHARED], indirect=True)
@pytest.mark.parametrize(("path", "stream"), KINDS)
def test_a_value_that_was_copied_to_another_teams_key_is_a_miss(site, path, stream):
    """Every value is put at every other key of its form: whoever asks there gets an answer of its own."""
    teams = [site.key() for _ in range(3)]
    values = Values(site)
    others = values.keys()
    text = f"Say {word()}."

    def ask(each):
        return site.ask(each, text, path=path, stream=stream)

    place: dict[str, set[str]] = {}
    for each in teams:
        before = values.keys()
        assert ask(each).cache == "miss"
        assert ask(each).cache == "hit"
        place[each.team_id] = values.keys() - before
        assert place[each.team_id], "its answer is in Redis"
    assert len(values.keys() - others) == sum(map(len, place.values()))
    kept = {team: {form_of(key): values.get(key) for key in keys} for team, keys in place.items()}
    corrupt = site.metrics()["headgate_cache_corrupt_entries"]

    permutations = list(itertools.permutations(teams, 2))
    for whose, other in permutations:
        for key in place[whose.team_id]:
            values.put(key, kept[other.team_id][form_of(key)])
        with site.calls() as calls:
            told = ask(whose)
        assert (told.status, told.cache, len(calls)) == (200, "miss", 1)
        assert site.is_own(told)
        again = ask(whose)
        assert (again.cache, again.body) == ("hit", told.body), "what was put there has been replaced"
    assert site.metrics()["headgate_cache_corrupt_entries"] >= corrupt + len(permutations)


@pytest.mark.parametrize("site", [SHARED], indirect=True)
def test_a_value_that_was_copied_to_the_other_form_is_a_miss(site, key):
    values = Values(site)
    before = values.keys()
    text = f"Say {word()}."
    first = site.ask(key, text, stream=True)
    # They are on their way when the answer is.
    wait_for(lambda: len(values.keys() - before) == 2)
    kept = {form_of(name): name for name in values.keys() - before}
    assert set(kept) == {"json", "stream"}
    values.put(kept["json"], values.get(kept["stream"]))
    with site.calls() as calls:
        told = site.ask(key, text)
    assert (told.cache, told.is_stream, len(calls)) == ("miss", False, 1)
    assert site.is_own(told)
    again = site.ask(key, text, stream=True)
    assert (again.cache, again.body) == ("hit", first.body)
