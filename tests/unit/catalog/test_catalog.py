"""Models to routes: the first match wins, and what cannot be used is said."""

import pytest

from app.catalog import Catalog
from app.catalog.catalog import choose
from app.core.errors import ModelNotFound
from app.settings import Configuration


def catalog(*rules, off=frozenset()):
    upstreams = {"a": {"base_url": "http://a/v1"}, "b": {"base_url": "http://b/v1"}}
    return Catalog(Configuration.model_validate({"upstreams": upstreams, "models": list(rules)}), off=off)


def test_the_first_match_wins():
    one = catalog({"match": "sim-*", "upstream": "a"}, {"match": "*", "upstream": "b"})
    assert [route.upstream for route in one.resolve("sim-x")] == ["a"]
    assert [(route.upstream, route.model) for route in one.resolve("other")] == [("b", "other")]


def test_an_alias_has_targets_in_the_order_of_their_weight():
    rule = {"name": "fast", "targets": [{"upstream": "a", "model": "x"}, {"upstream": "b", "model": "y", "weight": 9}]}
    routes = catalog(rule).resolve("fast")
    assert [(route.upstream, route.model) for route in routes] == [("b", "y"), ("a", "x")]
    chosen = [choose(routes).upstream for _ in range(1000)]
    assert 800 < chosen.count("b") < 980
    assert choose(routes, besides=routes[0]) == routes[1]
    assert choose(routes[:1], besides=routes[0]) == routes[0]


def test_weights_balance_within_a_priority_and_the_lowest_is_first():
    targets = [
        {"upstream": "b", "model": "last", "priority": 5, "weight": 10_000},
        {"upstream": "a", "model": "x", "weight": 1},
        {"upstream": "b", "model": "y", "weight": 3},
    ]
    routes = catalog({"name": "fast", "targets": targets}).resolve("fast")
    assert [(route.model, route.priority) for route in routes] == [("y", 0), ("x", 0), ("last", 5)]
    chosen = [choose(routes).model for _ in range(1000)]
    assert 650 < chosen.count("y") < 850
    assert chosen.count("y") + chosen.count("x") == 1000
    assert choose(routes[2:]).model == "last"
    assert choose(routes[1:], besides=routes[1]).model == "last"


@pytest.mark.parametrize("name", ["", "nope", "A", "a\x00b", "a" * 300, "models/../x"])
def test_what_nobody_serves_is_not_found(name):
    with pytest.raises(ModelNotFound) as caught:
        catalog({"match": "gpt-?", "upstream": "a"}).resolve(name)
    assert caught.value.param == "model"
    assert len(caught.value.message) < 300


def test_patterns_are_not_regular_expressions_nor_character_classes():
    one = catalog({"match": "a.[bc]*", "upstream": "a"})
    assert one.resolve("a.[bc]-1")
    with pytest.raises(ModelNotFound):
        one.resolve("aXb-1")


def test_an_upstream_that_is_off_is_named():
    with pytest.raises(ModelNotFound, match="'a', which has no key"):
        catalog({"match": "*", "upstream": "a"}, off=frozenset("a")).resolve("x")


def test_names_and_lists():
    one = catalog(
        {"name": "fast", "upstream": "a", "model": "x"},
        {"match": "lit", "upstream": "b"},
        {"match": "*", "upstream": "b"},
    )
    assert one.names == (("fast", "a"), ("lit", "b"))
    assert one.listed_upstreams == ("b",)


def test_junk_names_do_not_pile_up():
    one = catalog({"match": "*", "upstream": "a"})
    for number in range(10_000):
        one.resolve(f"m{number}")
    assert len(one._resolved) <= 4096
