"""The OpenAPI document: no route leaves out who may call it, how it fails, and what its JSON looks like."""

from __future__ import annotations

from types import SimpleNamespace

import jsonschema_rs
import pytest
from pydantic import TypeAdapter

from app.admin.app import ADMIN_API, OWN_ROUTERS, ROUTERS, create_control_plane
from app.admin.document import routes_of

ROUTES = {**routes_of(ROUTERS, ADMIN_API), **routes_of(OWN_ROUTERS, "")}
DOCUMENT = create_control_plane(SimpleNamespace(metrics=None), host="127.0.0.1", metrics_token=None).openapi()
OPERATIONS = {
    (method, path): operation for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
}
PUBLIC = {
    ("post", f"{ADMIN_API}/session"),
    ("get", f"{ADMIN_API}/sso"),
    ("get", f"{ADMIN_API}/sso/login"),
    ("get", f"{ADMIN_API}/sso/callback"),
}
OF_PEOPLE, OF_KEYS = [{"token": []}, {"session": []}], [{"key": []}, {"session": []}]
TAKEN = {
    "post /teams",
    "patch /teams/{team_id}",
    "post /keys",
    "patch /keys/{key_id}",
    "post /tokens",
    "post /limits",
    "post /budgets",
    "post /prices",
    "post /upstreams/{name}/probe",
}
"""What can be refused since there is one like it."""


@pytest.fixture(params=list(OPERATIONS), ids=" ".join)
def place(request):
    return request.param


def bodies(operation):
    """Each JSON of an operation: its place, schema and example."""
    sent = operation.get("requestBody")
    found = {**({"request": sent} if sent else {}), **operation["responses"]}
    for name, body in found.items():
        for kind, media in body.get("content", {}).items():
            if kind == "application/json":
                yield name, media


def test_every_route_is_in_it():
    assert set(OPERATIONS) == set(ROUTES)
    assert set(DOCUMENT["components"]["securitySchemes"]) == {"token", "session", "key"}
    assert not {"HTTPValidationError", "ValidationError"} & set(DOCUMENT["components"]["schemas"])


def test_a_route_says_who_may_call_it(place):
    expected = [] if place in PUBLIC else OF_KEYS if place[1].startswith("/me") else OF_PEOPLE
    assert OPERATIONS[place]["security"] == expected
    assert OPERATIONS[place]["summary"]
    assert OPERATIONS[place]["description"]


def test_a_route_says_how_it_fails(place):
    method, path = place
    operation = OPERATIONS[place]
    told = {status for status in operation["responses"] if status[0] in "45"}
    needed = {"400", "500", "503"}
    if place not in PUBLIC:
        needed |= {"401", "429", *(() if method == "get" else ("403",))}
    if "requestBody" in operation:
        needed.add("413")
    if "{" in path:
        needed.add("404")
    if f"{method} {path.removeprefix(ADMIN_API)}" in TAKEN:
        needed.add("409")
    assert needed <= told
    assert ("409" in told) == ("409" in needed)
    assert "422" not in told
    assert all(status.isdigit() for status in operation["responses"])
    for status in told:
        answer = operation["responses"][status]
        assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
        assert "`" in answer["description"] or status == "503"


def test_what_is_for_some_roles_says_so():
    for path in ("tokens", "audit", "audit/export", "upstreams", "alerts", "alerts/targets", "alerts/deliveries"):
        assert "403" in OPERATIONS["get", f"{ADMIN_API}/{path}"]["responses"], path
    for path in ("teams", "keys", "usage", "overview", "alerts/open"):
        assert "403" not in OPERATIONS["get", f"{ADMIN_API}/{path}"]["responses"], path


def test_every_json_has_an_example_that_is_one(place):
    for name, media in bodies(OPERATIONS[place]):
        assert "example" in media, name
        schema = {**media["schema"], "components": DOCUMENT["components"]}
        faults = [str(fault) for fault in jsonschema_rs.Draft202012Validator(schema).iter_errors(media["example"])]
        assert not faults, (name, faults[0])


def test_what_is_sent_in_an_example_is_taken(place):
    route = ROUTES[place]
    for field in route.dependant.body_params:
        example = OPERATIONS[place]["requestBody"]["content"]["application/json"]["example"]
        TypeAdapter(field.field_info.annotation).validate_python(example)


def test_every_other_answer_is_a_file_or_events():
    for place, operation in OPERATIONS.items():
        for status, answer in operation["responses"].items():
            kinds = set(answer.get("content", {})) - {"application/json"}
            assert kinds <= {"text/csv", "application/jsonl", "text/event-stream"}, (place, status)
