"""What the administrator changes is in force for running servers: the file, and ``headgate cache clear``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from tests.e2e.cache.sites import Site, body_of, last_reload, told_in_the_file, word
from tests.e2e.cache.wire import Told, Visit
from tests.e2e.test_reload import reload
from tests.fakes.people import Key

FOLLOWED_S_MAX = 30.0


def caches(sites: Sequence[Site], key: Key, text: str, **more) -> list[str]:
    return [site.ask(key, text, **more).cache for site in sites]


def check_file(sites: Sequence[Site], key: Key) -> None:
    first = sites[0]
    colleague, stranger = first.key(team_id=key.team_id), first.key()
    text = f"Say {word()}."
    twice = [sites[0], *sites]
    assert caches(twice, key, text) == ["miss", *["hit"] * len(sites)]
    with told_in_the_file(sites, "{mode: off}"):
        assert caches(sites, key, text) == ["bypass"] * len(sites)
        assert sites[0].ask(key, text).detail == 'fwd=bypass; detail="off"'
    assert caches(sites, key, text) == ["hit"] * len(sites), "what was kept is there still"
    with told_in_the_file(sites, "{mode: all, scope: global}"):
        lively = f"Say {word()}."
        assert caches(twice, key, lively, temperature=1) == ["miss", *["hit"] * len(sites)]
        assert caches(sites, stranger, lively, temperature=1) == ["hit"] * len(sites)
    assert caches(sites, key, lively, temperature=1) == ["bypass"] * len(sites)
    with told_in_the_file(sites, "{scope: key}"):
        assert caches(twice, key, text) == ["miss", *["hit"] * len(sites)], "in another scope it is another entry"
        assert caches(sites[:1], colleague, text) == ["miss"]
    time.sleep(1.1)
    with told_in_the_file(sites, "{ttl_s: 1}"):
        assert caches(sites[:1], key, text) == ["miss"], "it is older than answers may be now"
        assert caches(sites, key, text) == ["hit"] * len(sites)


def test_a_changed_file_is_in_force(embedded):
    check_file([embedded], embedded.key())


def test_a_changed_file_is_in_force_at_both_replicas(pair):
    check_file(pair, pair[0].key())


def test_a_wrong_file_changes_nothing(site, key):
    text = f"Say {word()}."
    before = site.gateway.config.read_text()
    reload(site.gateway, f"{before}cache: {{mode: sometimes}}\n")
    assert last_reload(site) == "configuration_refused"
    assert caches([site, site], key, text) == ["miss", "hit"]
    reload(site.gateway, before)


# -- clearing ---------------------------------------------------------------------------------


def clear(site: Site, *options: str) -> Callable[[], float]:
    """Clears, and returns how many seconds ago that was."""
    site.command("cache", "clear", *options)
    cleared_s = time.monotonic()
    return lambda: time.monotonic() - cleared_s


def missed(site: Site, ago_s: Callable[[], float], key: Key, text: str, **more) -> Told:
    """The first answer that is not a hit any more."""
    while (told := site.ask(key, text, **more)).cache == "hit":
        assert ago_s() < FOLLOWED_S_MAX
    assert told.cache == "miss"
    return told


@pytest.mark.quiet
@pytest.mark.parametrize("stream", [False, True])
def test_after_a_clearing_the_next_request_is_called_within_a_second(site, key, stream):
    text = f"Say {word()}."
    first = site.ask(key, text, stream=stream)
    assert site.ask(key, text, stream=stream).cache == "hit"
    ago_s = clear(site)
    told = missed(site, ago_s, key, text, stream=stream)
    assert ago_s() < 1.5
    assert told.id != first.id
    again = site.ask(key, text, stream=stream)
    assert (again.cache, again.body) == ("hit", told.body)
    other_form = site.ask(key, text, stream=not stream)
    assert (other_form.cache, other_form.id) == ("hit", told.id), "nothing of the old one is left in the other form"


def test_a_teams_clearing_leaves_what_other_teams_have(site, key):
    stranger = site.key()
    text = f"Say {word()}."
    told = [site.ask(each, text) for each in (key, stranger)]
    missed(site, clear(site, "--team", site.people.name_of_team(key.team_id)), key, text)
    after = site.ask(stranger, text)
    assert (after.cache, after.id) == ("hit", told[1].id)
    assert site.ask(key, text).id != told[0].id


def test_a_models_clearing_leaves_what_others_said(site, key):
    stranger = site.key()
    text = f"Say {word()}."
    models = ("cleared-a", "cleared-b", "left")
    for each in (key, stranger):
        assert [site.ask(each, text, model=model).cache for model in models] == ["miss"] * 3
    team = site.people.name_of_team(key.team_id)
    ago_s = clear(site, "--model", "cleared-*", "--team", team)
    missed(site, ago_s, key, text, model="cleared-a")
    assert [site.ask(key, text, model=model).cache for model in models[1:]] == ["miss", "hit"]
    assert [site.ask(stranger, text, model=model).cache for model in models] == ["hit"] * 3
    ago_s = clear(site, "--model", "cleared-*")
    missed(site, ago_s, stranger, text, model="cleared-a")
    assert [site.ask(stranger, text, model=model).cache for model in models[1:]] == ["miss", "hit"]


def test_both_replicas_follow_a_clearing(pair):
    first, second = pair
    key = first.key()
    text = f"Say {word()}."
    assert caches([first, second], key, text) == ["miss", "hit"]
    ago_s = clear(second)
    told = missed(first, ago_s, key, text)
    # The one that follows later does not take what the other has just kept for cleared.
    while (other := second.ask(key, text)).id != told.id:
        assert ago_s() < FOLLOWED_S_MAX
    assert other.cache == "hit"


def test_an_answer_to_a_call_that_had_begun_before_a_clearing_is_not_kept(site, key):
    body = body_of(f"[[sim: first_ms=1200 times=1 tag={word()}]] hi")

    async def work() -> Told:
        before = site.simulator.log.last_number
        visit = await Visit.begin(site.port, key.text, body)
        await site.called(before)
        await asyncio.to_thread(site.command, "cache", "clear")
        return await visit.rest()

    other = f"Say {word()}."
    site.ask(key, other)
    first = asyncio.run(work())
    assert site.ask(key, other).cache == "miss", "it is known here by now"
    second = site.ask(key, body=body)
    assert (first.cache, second.cache) == ("miss", "miss")
    assert second.id != first.id
    assert site.ask(key, body=body).id == second.id


def test_what_an_idempotency_key_stands_for_is_not_cleared(site, key):
    headers = {"idempotency-key": word()}
    text = f"Say {word()}."
    first = site.ask(key, text, headers=headers)
    other = f"Say {word()}."
    site.ask(key, other)
    missed(site, clear(site), key, other)
    again = site.ask(key, text, headers=headers)
    assert (again.cache, again.body) == ("hit", first.body)
