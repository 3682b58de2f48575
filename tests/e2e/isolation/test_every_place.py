"""The endpoint table walked: in every place where an id can stand, another team's is as unknown as one that is not."""

from __future__ import annotations

import httpx
import pytest

from app.edge.table import FAMILIES
from tests.e2e.isolation.conftest import World, put, told, unknown_like
from tests.e2e.isolation.places import BODIES, FORMS, ID, NAMES_NOTHING, QUERIES

ENDPOINTS = [endpoint for family in FAMILIES for endpoint in family.endpoints]
PATHS = [(endpoint, part[1:-1]) for endpoint in ENDPOINTS for part in endpoint.path.split("/") if part.startswith("{")]


def send(client: httpx.Client, endpoint, path: str) -> httpx.Response:
    if endpoint.method != "POST":
        return client.request(endpoint.method, path)
    if "json" in endpoint.body:
        return client.post(path, json={"model": "gpt-4o", "input": "hi", "prompt": "a"})
    return client.post(path, files={"data": ("a.txt", b"a")})


def refused_alike(world: World, foreign: str, ask) -> None:
    """``ask(id)`` by the other team: the same for what is mine and for what is nobody's, and nothing goes upstream."""
    unknown = unknown_like(foreign)
    before = len(world.upstream.asked)
    of_foreign, of_unknown = ask(foreign), ask(unknown)
    assert of_foreign.status_code == 404, of_foreign.text
    assert of_foreign.json()["error"]["code"] in {"not_found", "previous_response_not_found"}
    assert told(of_foreign, foreign) == told(of_unknown, unknown)
    assert len(world.upstream.asked) == before, world.upstream.asked[before:]


@pytest.mark.parametrize(("endpoint", "kind"), PATHS, ids=[f"{e.method} {e.path} {kind}" for e, kind in PATHS])
def test_an_id_in_a_path(world, endpoint, kind):
    own = world.mine.make(kind)
    allowed = send(world.mine.client, endpoint, world.mine.fill(endpoint.path, **{kind: own}))
    assert allowed.status_code == 200, allowed.text
    assert world.upstream.asked[-1][0] == endpoint.method
    if endpoint.method == "DELETE":
        world.mine.forget_made()
    foreign = world.mine.make(kind)

    def ask(object_id: str) -> httpx.Response:
        # Whatever else stands in the path is the other team's own: it is not for want of that.
        return send(world.theirs.client, endpoint, world.theirs.fill(endpoint.path, **{kind: object_id}))

    ask(unknown_like(foreign))
    refused_alike(world, foreign, ask)


PLACES = [(path, place) for path, places in BODIES.items() for place in places]


@pytest.mark.parametrize(("path", "place"), PLACES, ids=[f"{path} {number}" for number, (path, _) in enumerate(PLACES)])
def test_an_id_in_a_body(world, path, place):
    own = world.mine.make("file")
    allowed = world.mine.client.post(world.mine.fill(path), json=put(place, ID, own))
    assert allowed.status_code == 200, allowed.text
    mine = world.theirs.fill(path)
    refused_alike(world, own, lambda object_id: world.theirs.client.post(mine, json=put(place, ID, object_id)))


FORM_PLACES = [(path, place) for path, places in FORMS.items() for place in places]


@pytest.mark.parametrize(("path", "place"), FORM_PLACES)
def test_an_id_in_a_form(world, path, place):
    own = world.mine.make("file")
    sent = {"image": ("a.png", b"a")}
    assert world.mine.client.post(world.mine.fill(path), data=put(place, ID, own), files=sent).status_code == 200
    at = world.theirs.fill(path)
    refused_alike(
        world, own, lambda object_id: world.theirs.client.post(at, data=put(place, ID, object_id), files=sent)
    )


QUERY_PLACES = [(path, place) for path, places in QUERIES.items() for place in places]


@pytest.mark.parametrize(("path", "query"), QUERY_PLACES)
def test_an_id_in_a_query(world, path, query):
    kind = {"/files": "file", "/batches": "batch", "/vector_stores": "vector_store"}.get(path, "file")
    own = world.mine.make(kind)
    assert world.mine.client.get(f"{world.mine.fill(path)}?{query.replace(ID, own)}").status_code == 200
    at = world.theirs.fill(path)
    refused_alike(world, own, lambda object_id: world.theirs.client.get(f"{at}?{query.replace(ID, object_id)}"))


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_head_tells_no_more_than_a_get(world, method):
    own = world.mine.make("response")
    assert world.mine.client.request(method, f"/responses/{own}").status_code == 200
    for object_id in (own, unknown_like(own)):
        assert world.theirs.client.request(method, f"/responses/{object_id}").status_code == 404


def test_every_family_has_its_cases():
    """A new family, or an endpoint that takes a body, needs a place here, or a reason why it has none."""
    for family in FAMILIES:
        paths = {endpoint.path for endpoint in family.endpoints if "{" in endpoint.path}
        bodies = {endpoint.path for endpoint in family.endpoints} & {*BODIES, *FORMS}
        assert paths or bodies or family.name in NAMES_NOTHING, family.name
        assert not (bodies and family.name in NAMES_NOTHING), family.name
    known = {endpoint.path for endpoint in ENDPOINTS}
    assert {*BODIES, *FORMS, *QUERIES} <= known


CREATES_BY_BODY = [e for e in ENDPOINTS if e.method == "POST" and "json" in e.body and (e.creates or e.metered)]
FREE_OF_IDS = {
    "/completions": "text",
    "/embeddings": "text",
    "/images/generations": "text",
    "/audio/speech": "text",
    "/uploads": "the file's name and size",
    "/videos/{video}/remix": "a prompt; the video is in the path",
    "/threads/{thread}/runs/<run>/submit_tool_outputs": "outputs by the call's own id",
}


@pytest.mark.parametrize("endpoint", CREATES_BY_BODY, ids=lambda e: e.path)
def test_every_create_has_a_case_for_its_body(endpoint):
    assert (endpoint.path in BODIES) != (endpoint.path in FREE_OF_IDS)
