"""The OpenAPI document: what routes say of themselves, and what follows from what they need.

Who may call a route, and which errors it answers, is worked out of its dependencies: a route cannot forget to say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, get_args

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.admin.access import COOKIE, CSRF_HEADER, SAFE_METHODS
from app.admin.guard import BODY_BYTES_MAX
from app.admin.wire import administrator, key_keeper, own_key, reader, viewer

DESCRIPTION = """
Teams, keys, budgets, what was spent, and why. Send an admin token as `Authorization: Bearer hg-admin-…`; a browser
that has signed in is known by its cookie, and sends `x-headgate-csrf` with every request but GET and HEAD.

Times are ISO 8601 in UTC. Money is a decimal string in dollars (`…_usd`); null is "unpriced", never zero. Lists are
`{"data": […], "next": cursor or null}`.
"""
SCHEMES: dict[str, Any] = {
    "token": {"type": "http", "scheme": "bearer", "description": "An admin token."},
    "key": {"type": "http", "scheme": "bearer", "description": "A gateway key, for what is under `/me`."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": f"Of a browser that has signed in; changes also need `{CSRF_HEADER}`.",
    },
}
OF_PEOPLE: list[dict[str, list[str]]] = [{"token": []}, {"session": []}]
OF_KEYS: list[dict[str, list[str]]] = [{"key": []}, {"session": []}]
JSON = "application/json"

Routes: TypeAlias = Mapping[tuple[str, str], APIRoute]
"""By method, in small letters, and path."""


def routes_of(routers: Iterable[APIRouter], prefix: str) -> dict[tuple[str, str], APIRoute]:
    """The routes of ``routers``, as they are mounted at ``prefix``."""
    return {
        (method.lower(), f"{prefix}{route.path}"): route
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }


def describe(app: FastAPI, routes: Routes) -> None:
    """Adds to the document of ``app`` who may call each of ``routes``, how it fails, and examples."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = plain()
            schemas = made["components"]["schemas"]
            for name, shown in _examples(routes).items():
                # As it was made it has lost every null of the examples.
                schemas[name].update(shown)
            made["components"]["securitySchemes"] = SCHEMES
            made["security"] = OF_PEOPLE
            for path, operations in made["paths"].items():
                for method, operation in operations.items():
                    _complete(operation, method, path, routes[method, path])
                    _exemplify(operation, schemas)
            # FastAPI's own, which nothing here answers.
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's own way to extend the document


# -- who, and how it fails ------------------------------------------------------------------------


def _complete(operation: dict[str, Any], method: str, path: str, route: APIRoute) -> None:
    needs = set(_calls(route.dependant))
    if own_key in needs:
        operation["security"] = OF_KEYS
    else:
        operation.setdefault("security", OF_PEOPLE if reader in needs else [])
    changes = method.upper() not in SAFE_METHODS
    errors = {"400": "`invalid_request`: a parameter or a member is not known, or its value means nothing."}
    if operation["security"]:
        code = "invalid_api_key" if own_key in needs else "invalid_admin_token"
        errors["401"] = f"`{code}`: nobody is known by the credential."
        errors["429"] = "`rate_limit_exceeded`: too many wrong credentials from this address; see `retry-after`."
        if changes or needs & {administrator, key_keeper, viewer}:
            errors["403"] = "`forbidden`: the role may not" + (", or the CSRF token is wrong." if changes else ".")
    if "{" in path:
        errors["404"] = "`not_found`: there is no such thing, or it belongs to others."
    if "requestBody" in operation:
        errors["400"] += " `invalid_json`, `ambiguous_json`: the body is not strict JSON in UTF-8."
        errors["413"] = f"`body_too_large`: more than {BODY_BYTES_MAX} bytes."
    errors["503"] = "`ledger_unavailable`: the ledger does not answer; try again."
    responses = operation["responses"]
    # FastAPI's own; what it stands for is 400 here.
    responses.pop("422", None)
    for status, description in errors.items():
        responses.setdefault(status, {"description": description, "content": {JSON: {"schema": dict(ERROR)}}})
    operation["responses"] = dict(sorted(responses.items()))


ERROR = {"$ref": "#/components/schemas/ErrorAnswer"}


def _calls(dependant: Dependant) -> Iterable[Any]:
    yield dependant.call
    for each in dependant.dependencies:
        yield from _calls(each)


# -- examples -------------------------------------------------------------------------------------


def _examples(routes: Routes) -> dict[str, Any]:
    """What each model shows of itself, by its name."""
    kinds = (kind for route in routes.values() for kind in (route.response_model, *_bodies(route)))
    models = {model for kind in kinds for model in _models(kind)}
    return {model.__name__: shown for model in models if (shown := model.model_config.get("json_schema_extra"))}


def _bodies(route: APIRoute) -> list[Any]:
    return [field.field_info.annotation for field in route.dependant.body_params]


def _models(kind: Any) -> Iterable[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from _models(field.annotation)
    for each in get_args(kind):
        yield from _models(each)


class _NoExampleError(Exception):
    """Nothing can be shown without inventing it."""


def _exemplify(operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """Puts an example beside each JSON of ``operation``, made of those that its schemas have."""
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        media = body.get("content", {}).get(JSON)
        if media is not None and "example" not in media:
            try:
                media["example"] = _example_of(media["schema"], schemas)
            except _NoExampleError:
                continue


def _example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    """What the schema shows of itself; of a list what its items show. Raises _NoExampleError."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "example" in schema:
        return schema["example"]
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("type") == "array":
        return [_example_of(schema["items"], schemas)]
    members = schema.get("properties", {})
    if "data" not in members:
        raise _NoExampleError
    # A list: what else it has beside its rows can be null.
    return {name: _example_of(member, schemas) if name == "data" else None for name, member in members.items()}
