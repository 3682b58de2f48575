"""No place that tells requests, tokens or money is forgotten: each route and command is walked, or is said to tell none."""

from __future__ import annotations

import importlib

import typer

from app.cli.commands import app
from tests.e2e.admin.tie_out.books import API

WALKED = {
    "GET /metrics": "test_metrics.test_metrics_are_the_records_and_the_bill",
    "GET /budgets": "test_views.test_budgets",
    "GET /budgets/{budget_id}": "test_views.test_budgets",
    "POST /budgets": "test_views.test_budgets",
    "GET /explain/{request_id}": "test_records.test_each_record_and_its_explanation",
    "GET /keys": "test_views.test_keys",
    "GET /keys/{key_id}": "test_views.test_keys",
    "GET /overview": "test_views.test_overview",
    "GET /prices": "test_views.test_prices",
    "POST /prices/reprice": "test_views.test_what_would_be_priced_again",
    "GET /records": "test_records.test_search",
    "GET /records/export": "test_records.test_files",
    "GET /records/{request_id}": "test_records.test_each_record_and_its_explanation",
    "GET /service": "test_views.test_service",
    "GET /upstreams": "test_views.test_upstreams",
    "GET /usage": "test_usage.test_every_group_of_the_year",
    "GET /usage/export": "test_files.test_csv_and_json_lines",
    "GET /me/limits": "test_views.test_what_is_left_for_a_key",
    "GET /me/records": "test_records.test_a_key_sees_its_own",
    "GET /me/usage": "test_usage.test_a_key_sees_its_own_part",
    "headgate backup": "test_commands.test_backup",
    "headgate cache stats": "test_commands.test_cache_stats",
    "headgate check": "test_commands.test_check",
    "headgate explain": "test_commands.test_explain",
    "headgate limits list": "test_views.test_limits_of_the_command_line",
    "headgate prune": "test_commands.test_what_would_be_pruned",
    "headgate reprice": "test_commands.test_what_cannot_be_priced_again",
    "headgate usage": "test_commands.test_usage_as_data",
}
"""The place, and the test that compares what it tells."""

CHANGES = "changes people, keys, rules or prices; what it tells is what the list of them tells"
NAMES = "names, limits and states, no use of them"
MOMENT = "what was so at one moment, and adds up to nothing"
TELLS_NONE = {
    "GET /session": NAMES,
    "POST /session": NAMES,
    "DELETE /session": NAMES,
    "GET /sso": NAMES,
    "GET /sso/login": NAMES,
    "GET /sso/callback": NAMES,
    "GET /tokens": NAMES,
    "POST /tokens": CHANGES,
    "DELETE /tokens/{token_id}": CHANGES,
    "GET /teams": NAMES,
    "POST /teams": CHANGES,
    "GET /teams/{team_id}": NAMES,
    "PATCH /teams/{team_id}": CHANGES,
    "POST /keys": CHANGES,
    "PATCH /keys/{key_id}": CHANGES,
    "GET /keys/counts": "how many keys there are",
    "POST /keys/{key_id}/rotate": CHANGES,
    "POST /keys/{key_id}/revoke": CHANGES,
    "GET /keys/{key_id}/secrets": "when each was used last",
    "PATCH /keys/{key_id}/secrets/{secret_id}": CHANGES,
    "POST /keys/{key_id}/secrets/{secret_id}/revoke": CHANGES,
    "PATCH /budgets/{budget_id}": CHANGES,
    "DELETE /budgets/{budget_id}": CHANGES,
    "GET /limits": NAMES,
    "POST /limits": CHANGES,
    "PATCH /limits/{limit_id}": CHANGES,
    "DELETE /limits/{limit_id}": CHANGES,
    "POST /upstreams/{name}/probe": MOMENT,
    "POST /upstreams/{name}/pause": CHANGES,
    "POST /upstreams/{name}/resume": CHANGES,
    "POST /prices": CHANGES,
    "DELETE /prices/{price_id}": CHANGES,
    "GET /audit": "what people changed",
    "GET /audit/export": "what people changed",
    "GET /live": "requests as they end, before their corrections: tests/e2e/live",
    "GET /me/live": "requests as they end, before their corrections: tests/e2e/live",
    "GET /alerts": NAMES,
    "POST /alerts": CHANGES,
    "PATCH /alerts/{rule_id}": CHANGES,
    "DELETE /alerts/{rule_id}": CHANGES,
    "GET /alerts/open": MOMENT,
    "GET /alerts/resolved": MOMENT,
    "GET /alerts/targets": NAMES,
    "POST /alerts/targets/{name}/test": CHANGES,
    "GET /alerts/deliveries": "messages that were sent",
    "GET /me": NAMES,
    "headgate serve": NAMES,
    "headgate serve-simulator": NAMES,
    "headgate serve-worker": NAMES,
    "headgate simulate": NAMES,
    "headgate restore": "how many rows there are, as the backup has them",
    "headgate cache clear": CHANGES,
    "headgate keys create": CHANGES,
    "headgate keys list": NAMES,
    "headgate keys revoke": CHANGES,
    "headgate keys rotate": CHANGES,
    "headgate keys show": NAMES,
    "headgate keys update": CHANGES,
    "headgate limits add": CHANGES,
    "headgate limits remove": CHANGES,
    "headgate limits update": CHANGES,
    "headgate processes list": "what those that are lost may hold, which is not spent",
    "headgate processes write-off": CHANGES,
    "headgate state new-key": NAMES,
    "headgate state reset": CHANGES,
    "headgate state rotate": CHANGES,
    "headgate teams create": CHANGES,
    "headgate teams list": NAMES,
    "headgate teams update": CHANGES,
    "headgate tokens create": CHANGES,
    "headgate tokens list": NAMES,
    "headgate tokens revoke": CHANGES,
}
"""The place, and why there is nothing to compare."""

OWN_WORDS = ("cost", "spent", "saved", "tokens", "requests", "usd")
"""What members that tell use are named with."""


def routes(document):
    return {
        f"{method.upper()} {path.removeprefix(API)}"
        for path, methods in document["paths"].items()
        for method in methods
    }


def commands(group, name="headgate"):
    if not hasattr(group, "commands"):
        return {name}
    return {each for part, command in group.commands.items() for each in commands(command, f"{name} {part}")}


def test_each_route_and_command_is_walked_or_tells_no_totals(books):
    places = {"GET /metrics", *routes(books.ask("/../openapi.json")), *commands(typer.main.get_command(app))}
    assert places - WALKED.keys() - TELLS_NONE.keys() == set(), "walk them here, or say why they tell no totals"
    assert (WALKED.keys() | TELLS_NONE.keys()) - places == set(), "these are no more"
    assert WALKED.keys() & TELLS_NONE.keys() == set()


def test_each_test_that_is_named_is_there():
    for place, name in WALKED.items():
        module, _, test = name.partition(".")
        assert hasattr(importlib.import_module(f"tests.e2e.admin.tie_out.{module}"), test), place
