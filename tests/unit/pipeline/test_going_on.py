"""Requests that go on from kept turns, from their body to what is sent, and to whom; the database is away."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from app.auth.ownership import Ownership
from app.auth.references import Reference
from app.cache.inquiry import Inquiry
from app.catalog import Route
from app.core.codec import parse_object
from app.core.errors import InvalidRequest, LedgerUnavailable, Overloaded, StoredObjectNotFound
from app.core.exchange import Endpoint
from app.core.identity import Principal
from app.core.records import OwnedObject
from app.pipeline import kept_turns, planning
from app.pipeline.boarding import Boarding
from app.pipeline.flight import Flight
from app.pipeline.kept_turns import KeptTurns
from app.pipeline.passing import Passing
from app.pipeline.planning import Planner
from app.pipeline.recall import Recall
from app.settings import UpstreamSettings
from app.state.chains import Chains
from app.state.turn import Keeping
from app.state.turns import Turns

PRINCIPAL = Principal("t", "team", "k", "key", "s", (), ())
CREATE = Endpoint("responses", "POST", "/responses", metered=True, dialect="responses", creates="response")
COUNT = Endpoint("responses", "POST", "/responses/input_tokens")
RETRIEVE = Endpoint("responses", "GET", "/responses/{response}")
ROUTES = {
    "m": (Route("here", "real"),),
    "both": (Route("here", "real"), Route("keeps", "real")),
    "pair": (Route("here", "real"), Route("there", "real")),
    "native": (Route("keeps", "real"),),
}
STATES = {"here": "gateway", "there": "gateway", "keeps": "upstream"}


class Away:
    """A database that does not answer; counts who asks."""

    dialect = "postgresql"

    def __init__(self):
        self.asked = 0

    async def within(self, _seconds, work):
        work.close()
        self.asked += 1
        raise TimeoutError


class World:
    def __init__(self, body_bytes_max=100_000, held_bytes_max=1_000_000):
        self.database = Away()
        self.clock = SimpleNamespace(now_ms=lambda: 1_000)
        self.turns = Turns(self.database, self.clock)
        self.ownership = Ownership(self.database)
        self.chains = Chains(
            self.turns, {"here": 1, "there": 1}, body_bytes_max=body_bytes_max, held_bytes_max=held_bytes_max
        )
        self.kept = KeptTurns(self.chains, self.clock, self.ownership)
        pools = {
            name: SimpleNamespace(
                model_in_body=lambda _, model: model,
                name=name,
                settings=UpstreamSettings(base_url="http://u/v1", state=state),
            )
            for name, state in STATES.items()
        }
        catalog = SimpleNamespace(resolve=ROUTES.__getitem__, names_with=lambda *_: False)
        inquirer = SimpleNamespace(inquire=lambda *_: Inquiry("state"))
        routing = SimpleNamespace(only=lambda routes: routes[0])
        self.planner = Planner(self.ownership, catalog, pools, inquirer, Recall(frozenset()), routing, None, self.kept)

    def keep(self, response_id, *, text="hi", output=b"[]", after=None, pinned="", upstream="here"):
        item = b'{"role":"user","content":"%b"}' % text.encode()
        chain = (None, None) if after is None else (after.turn_id, after.chain_id)
        draft = self.turns.begin(Keeping("t", item, frozenset(STATES), pinned, *chain), lambda: upstream)
        draft.see_json(b'{"id":"%b","status":"completed","model":"last","output":%b}' % (response_id.encode(), output))
        assert draft.was_kept
        return self.turns.in_memory("t", response_id)[0]

    def own(self, object_id, upstream="keeps", kind="response"):
        self.ownership.remember([OwnedObject(object_id, upstream, "t", kind, "r", 1)])

    async def plan(self, body, query=b""):
        return await self.planner.plan(exchange(CREATE, body, query), PRINCIPAL)

    async def count(self, body, query=b""):
        return await Passing._read(SimpleNamespace(_planner=self.planner), exchange(COUNT, body, query), PRINCIPAL)

    async def answer(self, response_id, path="/responses/x", method="GET"):
        asked = exchange(RETRIEVE, b"", ids=(("response", response_id),), path=path, method=method)
        return await self.kept.answer(asked, PRINCIPAL, self.planner.holder_of)


def exchange(endpoint, body, query=b"", ids=(), path="", method=""):
    async def read_body():
        return body if isinstance(body, bytes) else json.dumps(body).encode()

    return SimpleNamespace(
        endpoint=endpoint,
        media="json",
        query=query,
        ids=ids,
        headers=[],
        path=path or endpoint.path,
        method=method or endpoint.method,
        read_body=read_body,
        forget_body=lambda: None,
    )


def asked(previous="resp_1", model="m", **more):
    return {"model": model, "input": "on", "previous_response_id": previous, **more}


async def test_the_reference_at_the_top_is_the_one_that_is_gone_on_from():
    world = World()
    world.keep("resp_1")
    plan = await world.plan(asked())
    assert [item["content"] for item in json.loads(plan.body)["input"]] == ["hi", "on"]
    anywhere = [
        ({"model": "m", "input": "x"}, b"previous_response_id=resp_1"),
        ({"model": "m", "input": [{"type": "message", "content": "x", "previous_response_id": "resp_1"}]}, b""),
        (asked(input=[{"type": "message", "content": "x", "previous_response_id": "resp_1"}]), b""),
    ]
    for body, query in anywhere:
        # Whose such a thing is the ledger would know; nothing is gone on from by it.
        with pytest.raises(LedgerUnavailable):
            await world.plan(body, query)
    for body, query in anywhere[:2]:
        load = await world.count(body, query)
        assert (load.route, [each.object_id for each in load.references]) == (None, ["resp_1"])
    for body, query in (anywhere[2], (asked(), b"previous_response_id=resp_1")):
        with pytest.raises(LedgerUnavailable):
            await world.count(body, query)


async def test_what_is_no_id_is_refused():
    for ask in (World().plan, World().count):
        with pytest.raises(InvalidRequest) as refused:
            await ask(asked(["resp_1"]))
        assert refused.value.param == "previous_response_id"


async def test_what_an_upstream_is_known_to_hold_is_not_asked_of_the_ledger():
    world = World()
    world.own("resp_native")
    plan = await world.plan(asked("resp_native", "both"))
    assert [route.upstream for route in plan.routes] == ["keeps"]
    assert json.loads(plan.body)["previous_response_id"] == "resp_native"
    assert (await world.count(asked("resp_native", "native"))).route is None
    assert await world.answer("resp_native") is None
    assert await world.answer("resp_native", "/responses/x/cancel", "POST") is None
    assert world.database.asked == 0
    # A turn that waits here is newer than what memory knows of that id.
    world.keep("resp_native", text="kept")
    assert "kept" in (await world.plan(asked("resp_native"))).body.decode()
    world.own("resp_of_old", "here")
    with pytest.raises(LedgerUnavailable):
        await world.plan(asked("resp_of_old"))


async def test_who_waits_for_a_turn_waits_with_what_it_asked_for(monkeypatch):
    world, looks = World(), []

    async def one(team_id, response_id, now_ms, room):
        looks.append(response_id)
        return None if len(looks) < 3 else world.keep(response_id)

    async def nobody(principal, references):
        raise StoredObjectNotFound.of("response_id", "resp_1")

    monkeypatch.setattr("app.state.chains.LATE_PAUSES_S", (0.0, 0.0, 0.0))
    world.chains.one, world.chains.find = one, None
    asked = exchange(RETRIEVE, b"", ids=(("response", "resp_1"),))
    assert b"resp_1" in await world.kept.answer(asked, PRINCIPAL, nobody)
    assert len(looks) == 3


async def test_large_input_is_listed_in_a_thread(monkeypatch):
    world, threads = World(), []
    world.keep("resp_1")

    async def to_thread(call, *arguments):
        threads.append(call)
        return call(*arguments)

    monkeypatch.setattr(kept_turns.asyncio, "to_thread", to_thread)
    await world.answer("resp_1", "/responses/resp_1/input_items")
    assert threads == []
    monkeypatch.setattr(kept_turns, "SLOW_IN_THREAD_BYTES", 10)
    await world.answer("resp_1", "/responses/resp_1/input_items")
    assert threads == [kept_turns._page]


async def test_a_large_body_that_has_grown_is_read_in_a_thread(monkeypatch):
    world, threads = World(), []
    world.keep("resp_1", text="x" * 1000)
    real = planning.asyncio.to_thread

    async def to_thread(call, *arguments):
        threads.append(getattr(call, "func", call))
        return await real(call, *arguments)

    monkeypatch.setattr(planning.asyncio, "to_thread", to_thread)
    monkeypatch.setattr(planning, "SLOW_IN_THREAD_BYTES", 500)
    await world.plan(asked())
    assert planning.peek in threads


async def test_room_for_what_has_grown_is_given_back_with_the_body():
    world = World(held_bytes_max=5000)
    world.keep("resp_1", text="x" * 2000)
    first, second = (exchange(CREATE, asked()) for _ in range(2))
    await world.planner.plan(first, PRINCIPAL)
    held = world.turns._expanded_bytes
    assert 2000 < held < 3000
    await world.planner.plan(second, PRINCIPAL)
    third = exchange(CREATE, asked())
    with pytest.raises(Overloaded):
        await world.planner.plan(third, PRINCIPAL)
    for each in (first, first, third):
        each.forget_body()
    assert world.turns._expanded_bytes == held
    second.forget_body()
    assert world.turns._expanded_bytes == 0


REASONED = {"id": "rs_1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]}


async def test_reasoning_that_is_told_in_full_is_looked_up_only_where_it_could_be_found():
    world = World()
    echoed = {"model": "m", "input": [REASONED, {"role": "user", "content": "on"}]}
    plan = await world.plan(echoed)
    assert (plan.keeping.pinned, world.database.asked) == ("", 0)
    assert (await world.count(echoed)).references == []
    for model in ("both", "native"):
        with pytest.raises(LedgerUnavailable):
            await world.plan({**echoed, "model": model})
        assert (await world.count({**echoed, "model": model})).references == [Reference("rs_1", "input", told=True)]
    with pytest.raises(LedgerUnavailable):
        await world.plan({**echoed, "input": [{**REASONED, "content": []}]})


async def test_each_of_several_upstreams_is_sent_the_reasoning_that_it_made():
    world = World()
    told = json.dumps([REASONED, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]).encode()
    first = world.keep("resp_1", output=told)
    world.keep("resp_2", output=b'[{"type":"message","role":"assistant","content":"hm"}]', after=first)
    plan = await world.plan(asked(model="pair", previous_response_id="resp_2"))
    assert [item.get("type") for item in json.loads(plan.body)["input"]] == [
        None,
        "function_call",
        None,
        "message",
        "message",
    ]
    (body, span) = plan.variants["here"]
    assert set(plan.variants) == {"here"}
    assert [item.get("type") for item in json.loads(body)["input"]][:3] == [None, "reasoning", "function_call"]
    assert body[slice(*span)] == b'"pair"'
    assert plan.size_bytes == len(body) > len(plan.body)
    # One that keeps its own might find what it names.
    assert set((await world.plan(asked(model="both", previous_response_id="resp_2"))).variants) == {"here"}
    assert not (await world.plan(asked(model="m", previous_response_id="resp_2"))).variants
    plan.take_body()
    assert not plan.variants
    load = await world.count(asked(model="pair", previous_response_id="resp_2"))
    assert b'"reasoning"' in load.body


async def test_there_is_room_for_all_that_may_be_sent():
    world = World(held_bytes_max=6000)
    world.keep("resp_1", text="x" * 2000, output=json.dumps([REASONED]).encode())
    one = exchange(CREATE, asked(model="pair"))
    await world.planner.plan(one, PRINCIPAL)
    assert world.turns._expanded_bytes > 4000
    one.forget_body()
    assert world.turns._expanded_bytes == 0


async def test_what_tools_and_models_name_pins_no_turn():
    world = World()
    for object_id in ("vs_1", "f_1"):
        world.own(object_id, "here", "file")
    tools = [{"type": "file_search", "vector_store_ids": ["vs_1"]}]
    plan = await world.plan({"model": "pair", "input": "x", "tools": tools})
    assert ([route.upstream for route in plan.routes], plan.keeping.pinned) == (["here"], "")
    of_input = [{"role": "user", "content": [{"type": "input_file", "file_id": "f_1"}]}]
    assert (await world.plan({"model": "pair", "input": of_input, "tools": tools})).keeping.pinned == "here"


async def test_tokens_are_counted_where_the_turn_would_be_made():
    world = World()
    world.keep("resp_1", pinned="there")
    load = await world.count(asked(model="pair"))
    assert (load.route.upstream, load.model) == ("there", "pair")
    assert [item["content"] for item in json.loads(load.body)["input"]] == ["hi", "on"]
    with pytest.raises(InvalidRequest) as refused:
        await world.count(asked(model="native"))
    assert refused.value.param == "previous_response_id"
    with pytest.raises(InvalidRequest) as refused:
        await world.count(asked(conversation="conv_1"))
    assert refused.value.param == "conversation"


async def test_tokens_are_counted_without_a_model_by_what_made_the_last_turn():
    world = World()
    world.keep("resp_1", upstream="there")
    body = asked()
    del body["model"]
    load = await world.count(body)
    assert load.route == Route("there", "last")
    assert load.model is None
    assert parse_object(load.body).get_str("model") == "last"
    # With one that is not configured any more nobody knows which.
    world.keep("resp_2", upstream="keeps")
    with pytest.raises(InvalidRequest) as refused:
        await world.count({**body, "previous_response_id": "resp_2"})
    assert refused.value.param == "model"


@pytest.mark.parametrize("item", ['{"type":"message","a":1,"a":2}', '{"a":' + "[" * 200 + "]" * 200 + "}"])
async def test_an_answer_that_cannot_be_sent_again_is_told_of_as_such(item):
    world = World()
    world.keep("resp_1", output=f"[{item}]".encode())
    with pytest.raises(InvalidRequest, match="What came before cannot be sent again") as refused:
        await world.plan(asked())
    assert (refused.value.code, refused.value.param) == ("invalid_request", "previous_response_id")


async def test_a_plan_lets_go_of_what_is_to_be_kept():
    plan = await World().plan({"model": "m", "input": "x"})
    assert plan.take_keeping().input
    assert plan.keeping is None


async def test_once_it_is_admitted_the_draft_alone_has_what_is_to_be_kept():
    world = World()
    plan = await world.plan({"model": "m", "input": "x"})
    keeping = plan.keeping

    async def admit(*_):
        return SimpleNamespace(payload=b""), plan.routes[0], []

    flight = SimpleNamespace(draft=None, meter=SimpleNamespace(attempt=SimpleNamespace(upstream="here")))
    boarding = Boarding.__new__(Boarding)
    boarding._desk = SimpleNamespace(turns=world.turns)
    boarding._routing = SimpleNamespace(first=lambda routes: (routes[0], []), admit=admit)
    boarding._admission = SimpleNamespace(bound=lambda *_: None)
    boarding._journal = SimpleNamespace(open=lambda *_: None)
    boarding._flight = lambda *_: flight
    asked = exchange(CREATE, b"")
    asked.request_id = "r"
    assert (await boarding.board(asked, PRINCIPAL, plan, "bypass")).flight is flight
    assert flight.draft._keeping is keeping
    assert plan.keeping is None


@pytest.mark.parametrize(
    ("terminal", "outcome", "lost"),
    [
        ("completed", "disconnected", True),
        # Too large to be read, so that nobody knows how it ended but that it is whole.
        (None, "completed", True),
        ("failed", "failed", False),
        (None, "interrupted", False),
    ],
)
def test_an_answer_that_was_not_kept_is_lost(terminal, outcome, lost):
    flight = SimpleNamespace(meter=SimpleNamespace(reading=SimpleNamespace(terminal=terminal)))
    record = SimpleNamespace(outcome=outcome)

    def is_lost(**more):
        draft = SimpleNamespace(**{"was_kept": False, "is_of_upstream": True, **more})
        return Flight._is_lost(flight, draft, record)

    assert is_lost() == lost
    assert not is_lost(was_kept=True)
    assert not is_lost(is_of_upstream=False)
