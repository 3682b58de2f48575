"""Lists hold what is the team's own, page by page, and nothing of the others; what answers make known is owned too."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.e2e.isolation.conftest import told, unknown_like
from tests.fakes.fleet import wait_for


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


@pytest.mark.parametrize(("path", "kind"), [("/vector_stores", "vector_store"), ("/batches", "batch")])
def test_a_list_is_of_the_teams_own(world, path, kind):
    foreign = {world.theirs.make(kind) for _ in range(3)}
    own = [world.mine.make(kind) for _ in range(5)]
    listed = ids(world.mine.client.get(path))
    assert listed[:5] == own[::-1]
    assert not foreign & set(listed)
    assert foreign <= set(ids(world.theirs.client.get(path)))


def test_pages_follow_each_other_both_ways(world):
    own = [world.mine.make("skill") for _ in range(7)]
    for order, expected in (("asc", own), ("desc", own[::-1])):
        found, after = [], ""
        while True:
            page = world.mine.client.get(f"/skills?limit=3&order={order}{after}").json()
            found += [row["id"] for row in page["data"]]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert [each for each in found if each in own] == expected
        for place, cursor in enumerate(found):
            page = world.mine.client.get(f"/skills?limit=2&order={order}&before={cursor}").json()
            assert [row["id"] for row in page["data"]] == found[max(place - 2, 0) : place]
            assert page["has_more"] is (place > 2)
    empty = world.theirs.client.get("/skills").json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(("path", "kind"), [("/chat/completions", "completion"), ("/evals", "eval")])
def test_a_list_has_the_order_that_the_api_gives_it(world, path, kind):
    """Stored chats and evals stand oldest first where nothing is said."""
    made = [world.mine.make(kind) for _ in range(3)]
    assert [each for each in ids(world.mine.client.get(f"{path}?limit=100")) if each in made] == made


def test_what_the_upstream_does_not_find_is_left_out_and_is_there_again(world):
    stays, goes = world.theirs.make("eval"), world.theirs.make("eval")
    world.upstream.gone.add(goes)
    assert ids(world.theirs.client.get("/evals")) == [stays]
    world.upstream.gone.clear()
    assert ids(world.theirs.client.get("/evals")) == [stays, goes]


def test_what_the_team_has_deleted_is_not_looked_for_again(world):
    stays, goes = world.theirs.make("assistant"), world.theirs.make("assistant")
    # Until the ledger has them they would be written down behind their end.
    wait_for(lambda: world.gateway.metrics()["headgate_journal_records"] == 0)
    assert world.theirs.client.delete(f"/assistants/{goes}").status_code == 200
    before = len(world.upstream.asked)
    assert ids(world.theirs.client.get("/assistants")) == [stays]
    assert world.upstream.asked[before:] == [("GET", f"/v1/assistants/{stays}")]


def test_a_list_is_narrowed_by_what_the_objects_say(world):
    own = world.theirs.make("container")
    world.upstream.more = {"name": "a"}
    try:
        assert ids(world.theirs.client.get("/containers?name=a")) == [own]
        assert ids(world.theirs.client.get("/containers?name=b")) == []
    finally:
        world.upstream.more = {}


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "order=up", "after=a&before=b", "nonsense=1"])
def test_a_list_refuses_what_it_does_not_understand(world, query):
    answer = world.mine.client.get(f"/batches?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("cursor", ["after", "before"])
def test_anothers_cursor_is_as_unknown_as_one_that_is_not(world, cursor):
    foreign = world.theirs.make("batch")
    unknown = unknown_like(foreign)
    refused = world.mine.client.get(f"/batches?{cursor}={foreign}")
    assert refused.status_code == 404
    assert told(refused, foreign) == told(world.mine.client.get(f"/batches?{cursor}={unknown}"), unknown)


def test_what_an_answer_names_is_the_teams(world):
    batch = world.mine.make("batch")
    world.upstream.more = {"output_file_id": "file-output-1", "metadata": {"file_id": "file-in-metadata"}}
    try:
        assert world.mine.client.get(f"/batches/{batch}").status_code == 200
    finally:
        world.upstream.more = {}
    assert world.mine.client.get("/files/file-output-1/content").status_code == 200
    assert world.theirs.client.get("/files/file-output-1/content").status_code == 404
    # What the client itself may have written proves nothing.
    assert world.mine.client.get("/files/file-in-metadata").status_code == 404


def test_whoever_was_first_keeps_it(world):
    own = world.mine.make("response")
    world.upstream.more = {"response_id": own}
    try:
        assert world.theirs.client.get(f"/batches/{world.theirs.make('batch')}").status_code == 200
    finally:
        world.upstream.more = {}
    assert world.theirs.client.get(f"/responses/{own}").status_code == 404
    assert world.mine.client.get(f"/responses/{own}").status_code == 200


def test_ownership_outlives_the_gateway(world):
    own = world.mine.make("response")
    world.gateway.stop()
    world.gateway.start()
    assert world.mine.client.get(f"/responses/{own}").status_code == 200
    unknown = unknown_like(own)
    refused = world.theirs.client.get(f"/responses/{own}")
    assert told(refused, own) == told(world.theirs.client.get(f"/responses/{unknown}"), unknown)


def test_the_id_of_a_stream_is_nobody_elses_at_once(simulated):
    """Used by another team's key as soon as the first bytes of the stream have come."""
    mine, theirs = simulated
    body = {"model": "sim-large", "input": "hi", "stream": True}
    for _ in range(20):
        with mine.stream("POST", "/responses", json=body) as answer:
            lines = answer.iter_lines()
            response_id = next(json.loads(line[6:])["response"]["id"] for line in lines if line.startswith("data: "))
            chained = {**body, "stream": False, "previous_response_id": response_id}
            found = [
                theirs.get(f"/responses/{response_id}").status_code,
                theirs.post("/responses", json=chained).status_code,
                theirs.post("/responses/input_tokens", json=chained).status_code,
            ]
            assert found == [404, 404, 404]
            assert list(lines)
        assert mine.get(f"/responses/{response_id}").status_code == 200


def test_items_of_a_response_can_be_referred_to_by_its_team_only(simulated):
    mine, theirs = simulated
    made = mine.post("/responses", json={"model": "sim-large", "input": "hi"}).json()
    item = made["output"][-1]["id"]
    body = {"model": "sim-large", "input": [{"type": "item_reference", "id": item}, {"role": "user", "content": "a"}]}
    assert mine.post("/responses", json=body).status_code == 200
    assert theirs.post("/responses", json=body).status_code == 404
    # Told by a stream it is the team's as well.
    with mine.stream("POST", "/responses", json={"model": "sim-large", "input": "hi", "stream": True}) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    body["input"][0]["id"] = next(
        event["item"]["id"] for event in events if event["type"] == "response.output_item.done"
    )
    wait_for(lambda: mine.post("/responses", json=body).status_code == 200)
    assert theirs.post("/responses", json=body).status_code == 404
