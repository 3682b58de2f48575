"""`previous_response_id` on upstreams that keep nothing: the gateway keeps the turns, for their team alone."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time

import httpx
import openai
import pytest
from cryptography.fernet import Fernet

from tests.fakes.fleet import Fleet, Stores, wait_for
from tests.fakes.gateway import RunningGateway
from tests.fakes.postgres import shared_server
from tests.fakes.stateless import Stateless, config_of

MARKER = "xylophone-4711"


@pytest.fixture(scope="module")
def upstream():
    with Stateless() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def other():
    with Stateless() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, upstream, other):
    config = config_of(
        f"base_url: '{upstream.base_url}', state: gateway",
        f"base_url: '{other.base_url}', state: gateway, state_ttl_days: 1",
        "kind: simulator, state: gateway",
        "kind: simulator",
        extra="prices: [{model: '*', input_per_mtok_usd: 1, output_per_mtok_usd: 1}]\n",
    )
    with RunningGateway(tmp_path_factory.mktemp("state"), config) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(gateway):
    with openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(gateway):
    team = gateway.json("teams", "create", "--name", "strangers")["id"]
    key = gateway.json("keys", "create", "--team", team, "--name", "one")["key"]
    with openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as client:
        yield client


def refusal(ask, *arguments, **more):
    with pytest.raises(openai.APIStatusError) as refused:
        ask(*arguments, **more)
    return refused.value.status_code, refused.value.body.get("code"), refused.value.body.get("param")


NOT_FOUND = (404, "previous_response_not_found", "previous_response_id")


def test_three_turns_and_the_upstream_hears_of_no_id(client, upstream):
    one = client.responses.create(model="m0", input=f"My name is {MARKER}.", instructions="Be kind.")
    two = client.responses.create(model="m0", input="What is it?", previous_response_id=one.id, temperature=0.70)
    assert two.output_text == f"My name is {MARKER}. | My name is {MARKER}. | What is it?"
    three = client.responses.create(
        model="m0", input=[{"role": "user", "content": "Say it again."}], previous_response_id=two.id
    )
    sent = upstream.last
    assert "previous_response_id" not in sent
    # As in the API, what the model was told how to be counts for its own turn.
    assert "instructions" not in sent
    assert [item["role"] for item in sent["input"]] == ["user", "assistant", "user", "assistant", "user"]
    assert three.output_text.endswith("Say it again.")
    assert b'"model":"real-0"' in upstream.bodies[-1]


def test_streams(client, upstream):
    def stream(text, **more):
        with client.responses.stream(model="m0", input=text, **more) as events:
            for _ in events:
                pass
            return events.get_final_response()

    one = stream("first")
    upstream.bare_end = True
    try:
        two = stream("second", previous_response_id=one.id)
    finally:
        upstream.bare_end = False
    three = stream("third", previous_response_id=two.id)
    assert three.output_text == "first | first | second | first | first | second | third"
    # What the end of its stream did not tell is there all the same.
    assert client.responses.retrieve(two.id).output_text == "first | first | second"


def test_a_stream_that_ends_incomplete_goes_on_and_one_that_fails_does_not(client, upstream):
    upstream.status = "incomplete"
    try:
        cut = client.responses.create(model="m0", input="cut")
        upstream.status = "failed"
        failed = client.responses.create(model="m0", input="failed")
    finally:
        upstream.status = "completed"
    assert client.responses.create(model="m0", input="on", previous_response_id=cut.id).output_text == "cut | cut | on"
    assert refusal(client.responses.create, model="m0", input="on", previous_response_id=failed.id) == NOT_FOUND


def test_another_team_finds_nothing(client, stranger, upstream):
    mine = client.responses.create(model="m0", input="mine")
    calls = len(upstream.bodies)
    for named in (mine.id, "resp_unknown"):
        assert refusal(stranger.responses.create, model="m0", input="x", previous_response_id=named) == NOT_FOUND
        for ask in (stranger.responses.retrieve, stranger.responses.delete, stranger.responses.input_items.list):
            assert refusal(ask, named) == (404, "not_found", "response_id")
    assert len(upstream.bodies) == calls
    assert upstream.gets == []
    assert client.responses.retrieve(mine.id).output_text == "mine"


def test_two_teams_have_the_same_id(client, stranger, upstream):
    upstream.ids += ["resp_77", "resp_77", "resp_77"]
    client.responses.create(model="m0", input="mine")
    stranger.responses.create(model="m0", input="theirs")
    ask = {"model": "m0", "input": "on", "previous_response_id": "resp_77"}
    upstream.ids += ["resp_78", "resp_79"]
    client.responses.create(model="m0", input="mine again")
    assert client.responses.create(**ask).output_text == "mine again | mine again | on"
    assert stranger.responses.create(**ask).output_text == "theirs | theirs | on"


def test_what_is_not_to_be_stored_is_not(client, gateway):
    one = client.responses.create(model="m0", input="secret", store=False)
    assert refusal(client.responses.create, model="m0", input="on", previous_response_id=one.id) == NOT_FOUND
    assert refusal(client.responses.retrieve, one.id)[0] == 404
    two = client.responses.create(model="m0", input="first")
    last = client.responses.create(model="m0", input="on", previous_response_id=two.id, store=False)
    assert last.output_text == "first | first | on"


def test_another_upstream_goes_on(client, upstream, other):
    upstream.more_output = [
        {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "for-the-first-alone"},
        {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"},
    ]
    try:
        one = client.responses.create(model="m0", input="first")
    finally:
        upstream.more_output = []
    called = {"type": "function_call_output", "call_id": "c1", "output": "42"}
    client.responses.create(model="m0", input=[called], previous_response_id=one.id)
    assert [item["type"] for item in upstream.last["input"]] == [
        "message",
        "reasoning",
        "function_call",
        "message",
        "function_call_output",
    ]
    there = client.responses.create(model="m1", input=[called], previous_response_id=one.id)
    assert "previous_response_id" not in other.last
    assert [item["type"] for item in other.last["input"]] == [
        "message",
        "function_call",
        "message",
        "function_call_output",
    ]
    # To one that keeps its own, and from there on it is that one's.
    kept_there = client.responses.create(model="m3", input="and on", previous_response_id=there.id)
    assert client.responses.create(model="m3", input="more", previous_response_id=kept_there.id).status == "completed"
    assert refusal(client.responses.create, model="m0", input="x", previous_response_id=kept_there.id)[0] == 400


def test_the_simulator_as_one_that_keeps_nothing(client):
    one = client.responses.create(model="m2", input="My name is Ada.")
    two = client.responses.create(model="m2", input="What is my name?", previous_response_id=one.id)
    assert "Ada" in two.output_text
    # It was told all of it: it knows of nothing before.
    assert two.previous_response_id is None
    assert two.usage.input_tokens > one.usage.input_tokens


def test_retrieve_list_and_delete(client, gateway, upstream):
    one = client.responses.create(model="m0", input=[{"role": "user", "content": text} for text in "abc"])
    two = client.responses.create(model="m0", input="on", previous_response_id=one.id)
    raw = httpx.get(f"{gateway.base_url}/responses/{one.id}", headers=gateway.headers)
    # As it came, number by number.
    assert b'"created_at": 1764500000.25' in raw.content
    head = httpx.head(f"{gateway.base_url}/responses/{one.id}", headers=gateway.headers)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == raw.headers["content-length"]
    items = client.responses.input_items.list(one.id, limit=2)
    assert [item.content[0].text for item in items.data] == ["c", "b"]
    assert items.has_more
    assert [item.content[0].text for item in items.get_next_page().data] == ["a"]
    assert [item.content[0].text for item in client.responses.input_items.list(one.id, order="asc")] == ["a", "b", "c"]
    assert [item.content[0].text for item in client.responses.input_items.list(two.id)] == ["on"]
    assert refusal(client.responses.input_items.list, one.id, after="msg_none")[0] == 404
    assert refusal(client.responses.input_items.list, one.id, limit=0)[2] == "limit"
    assert refusal(client.responses.retrieve, one.id, stream=True)[::2] == (400, "stream")
    assert refusal(client.responses.cancel, one.id)[0] == 400
    client.responses.delete(one.id)
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        assert refusal(ask, one.id)[0] == 404
    for named in (one.id, two.id):
        assert refusal(client.responses.create, model="m0", input="x", previous_response_id=named) == NOT_FOUND
    assert client.responses.retrieve(two.id).id == two.id
    assert upstream.gets == []


def test_tokens_are_counted_of_all_of_it(client, upstream):
    one = client.responses.create(model="m0", input="first")
    client.responses.input_tokens.count(model="m0", input="on", previous_response_id=one.id)
    assert "previous_response_id" not in upstream.last
    assert [item["role"] for item in upstream.last["input"]] == ["user", "assistant", "user"]
    assert upstream.last["model"] == "real-0"
    client.responses.input_tokens.count(input="on", previous_response_id=one.id)
    assert (upstream.last["model"], len(upstream.last["input"])) == (one.model, 3)
    assert refusal(client.responses.input_tokens.count, previous_response_id=[one.id])[::2] == (
        400,
        "previous_response_id",
    )
    unknown = refusal(client.responses.input_tokens.count, model="m0", input="on", previous_response_id="resp_none")
    assert unknown == NOT_FOUND


def test_a_history_that_is_echoed_whole(client, upstream):
    upstream.more_output = [
        {"id": "rs_told", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]}
    ]
    try:
        one = client.responses.create(model="m0", input="first", store=False)
    finally:
        upstream.more_output = []
    echoed = [item.model_dump(exclude_none=True) for item in one.output]
    client.responses.create(model="m0", input=[*echoed, {"role": "user", "content": "on"}])
    assert [item["type"] for item in upstream.last["input"][:2]] == ["reasoning", "message"]
    client.responses.input_tokens.count(model="m0", input=echoed)
    # One that keeps its own would look for it.
    assert refusal(client.responses.create, model="m3", input=echoed)[0] == 404


def test_reasoning_that_was_told_reaches_no_upstream_that_would_find_it(tmp_path, upstream):
    """Nobody has looked up whose it is: one that keeps its own could put another team's in its place."""
    with Stateless() as keeps:
        keeps.number = 1_000_000
        config = config_of(f"base_url: '{upstream.base_url}', state: gateway", f"base_url: '{keeps.base_url}'")
        gateway = RunningGateway(tmp_path, config)
        with gateway, openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
            told = {"type": "reasoning", "id": "rs_theirs", "summary": []}
            told["content"] = [{"type": "reasoning_text", "text": "so"}]
            one = client.responses.create(model="m0", input=[told, {"role": "user", "content": "first"}])
            assert upstream.last["input"][0] == told
            client.responses.create(model="m0", input="on", previous_response_id=one.id)
            assert upstream.last["input"][0] == told
            client.responses.create(model="m1", input="on", previous_response_id=one.id)
        assert b"rs_theirs" not in keeps.bodies[-1]
        assert [item["role"] for item in keeps.last["input"]] == ["user", "assistant", "user"]


def test_of_several_targets_the_one_that_reasoned_is_told_of_it(tmp_path, upstream, other):
    config = config_of(
        f"base_url: '{upstream.base_url}', state: gateway",
        f"base_url: '{other.base_url}', state: gateway",
    ).replace(
        "server:",
        "  - {name: two, targets: [{upstream: u0, model: first}, {upstream: u1, model: second, priority: 1}]}\nserver:",
    )
    gateway = RunningGateway(tmp_path, config)
    with gateway, openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        upstream.more_output = [
            {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "for-the-first-alone"},
            {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        ]
        try:
            one = client.responses.create(model="two", input="first")
        finally:
            upstream.more_output = []
        called = {"type": "function_call_output", "call_id": "c1", "output": "42"}
        ask = {"model": "two", "input": [called], "previous_response_id": one.id}
        client.responses.create(**ask)
        assert upstream.last["model"] == "first"
        assert [item["type"] for item in upstream.last["input"]][:3] == ["message", "reasoning", "function_call"]
        upstream.is_busy = True
        try:
            client.responses.create(**ask)
        finally:
            upstream.is_busy = False
        assert b"for-the-first-alone" in upstream.bodies[-1]
        assert other.last["model"] == "second"
        assert [item["type"] for item in other.last["input"]][:2] == ["message", "function_call"]


def test_what_looks_like_a_previous_response_and_is_none(client, upstream):
    one = client.responses.create(model="m0", input="first")
    calls = len(upstream.bodies)
    item = {"type": "message", "role": "user", "content": "x", "previous_response_id": one.id}
    for more in ({"extra_query": {"previous_response_id": one.id}, "input": "x"}, {"input": [item]}):
        assert refusal(client.responses.create, model="m0", **more) == NOT_FOUND
    assert refusal(client.responses.input_items.list, one.id, extra_query={"limit": "9" * 5000})[2] == "limit"
    assert len(upstream.bodies) == calls


def test_what_needs_state_at_the_upstream_is_refused(client, upstream):
    calls = len(upstream.bodies)
    for more in ({"background": True}, {"conversation": "conv_1"}):
        status, _, param = refusal(client.responses.create, model="m0", input="x", **more)
        assert (status, param) == (400, next(iter(more)))
    assert len(upstream.bodies) == calls
    assert client.responses.create(model="m3", input="x", background=True).status == "queued"


def test_all_that_is_sent_is_billed_and_reserved(client, gateway, upstream):
    one = client.responses.create(model="m0", input="x" * 8000)
    two = client.responses.create(model="m0", input="y", previous_response_id=one.id)
    assert two.usage.input_tokens == 16001
    deadline = time.monotonic() + 30
    while True:
        found = [record for record in gateway.records() if record["response_id"] == two.id]
        if found or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    (record,) = found
    assert [entry["input_tokens"] for entry in record["entries"]] == [16001]
    key = gateway.json("keys", "create", "--team", "default", "--name", "small", "--tokens-per-minute", "1500")["key"]
    small = client.with_options(api_key=key)
    ask = {"model": "m0", "input": "y", "max_output_tokens": 1}
    # Nothing was learnt of this key yet: what is reserved goes by the bytes that are sent.
    assert refusal(small.responses.create, **ask, previous_response_id=one.id)[:2] == (429, "insufficient_quota")
    assert small.responses.create(**ask).status == "completed"


def test_a_conversation_has_an_end(client):
    one = client.responses.create(model="m0", input="x" * 600_000)
    status, code, param = refusal(client.responses.create, model="m0", input="y", previous_response_id=one.id)
    assert (status, code, param) == (400, "invalid_request", "previous_response_id")


def test_the_cache_is_passed_by(client, gateway, upstream):
    ask = {"model": "m0", "input": "on", "temperature": 0, "store": False}
    one = client.responses.create(model="m0", input="first")
    calls = len(upstream.bodies)
    told = [client.responses.with_raw_response.create(**ask, previous_response_id=one.id) for _ in range(2)]
    assert [answer.headers["x-headgate-cache"] for answer in told] == ["bypass", "bypass"]
    assert "previous_response_id" in told[0].headers["cache-status"]
    assert len(upstream.bodies) == calls + 2


def kept_in(gateway, response_id):
    with sqlite3.connect(f"file:{gateway.data_dir / 'headgate.db'}?mode=ro", uri=True) as database:
        (count,) = database.execute("SELECT count(*) FROM turns WHERE response_id = ?", (response_id,)).fetchone()
    database.close()
    return count


def test_nothing_of_it_is_in_the_books_of_what_is_stored_upstream(client, gateway):
    one = client.responses.create(model="m0", input="first")
    wait_for(lambda: gateway.metrics()["headgate_journal_records"] == 0)
    wait_for(lambda: kept_in(gateway, one.id))
    with sqlite3.connect(f"file:{gateway.data_dir / 'headgate.db'}?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM objects WHERE object_id = ?", (one.id,)).fetchone() == (0,)
    database.close()
    assert gateway.metrics()['headgate_state_turns_total{result="lost"}'] == 0


def files_with(folder, text):
    return [path.name for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_restarts_keys_and_ciphertext(tmp_path, upstream):
    gateway = RunningGateway(tmp_path, config_of(f"base_url: '{upstream.base_url}', state: gateway"))
    with gateway, openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        one = client.responses.create(model="m0", input=MARKER)
    key_file = gateway.data_dir / "state.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    old, new = key_file.read_text().strip(), Fernet.generate_key().decode()

    def go_on(previous):
        with openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
            return client.responses.create(model="m0", input="on", previous_response_id=previous)

    # The journal, the log, the database: none of them can be read without the key.
    assert files_with(tmp_path, MARKER.encode()) == []
    assert files_with(gateway.data_dir, one.id.encode()) != []
    assert old not in gateway.log_path.read_text()

    key_file.write_text(f"{new}\n{old}\n")
    with gateway:
        two = go_on(one.id)
        assert two.output_text == f"{MARKER} | {MARKER} | on"
        # While it runs.
        assert gateway.json("state", "rotate")["rotated"] >= 1
    assert files_with(tmp_path, MARKER.encode()) == []

    # A key that does not know them is told of, and does no harm.
    gateway.environment["HEADGATE_STATE_KEYS"] = old
    with pytest.raises(RuntimeError, match="none of the state keys"):
        gateway.start()
    gateway.environment["HEADGATE_STATE_KEYS"] = new
    with gateway:
        assert go_on(two.id).output_text.startswith(MARKER)


async def test_postgresql_needs_keys_that_are_given(tmp_path, upstream):
    url = await shared_server().create_database()
    config = config_of(f"base_url: '{upstream.base_url}', state: gateway")
    gateway = RunningGateway(tmp_path, config, HEADGATE_DATABASE_URL=url)
    with pytest.raises(RuntimeError, match="needs HEADGATE_STATE_KEYS"):
        gateway.start()
    assert not (gateway.data_dir / "state.key").exists()
    path = tmp_path / "keys"
    path.write_text(Fernet.generate_key().decode())
    gateway.environment["HEADGATE_STATE_KEYS_FILE"] = str(path)
    with gateway, openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        one = client.responses.create(model="m0", input="first")
        assert (
            client.responses.create(model="m0", input="on", previous_response_id=one.id).output_text
            == "first | first | on"
        )
        time.sleep(0.5)
        assert (
            client.responses.create(model="m0", input="on", previous_response_id=one.id).output_text
            == "first | first | on"
        )
        begun = time.monotonic()
        assert refusal(client.responses.create, model="m0", input="x", previous_response_id="resp_none") == NOT_FOUND
        assert time.monotonic() - begun > 1.9


def test_it_is_switched_on_while_the_gateway_runs(tmp_path, upstream):
    gateway = RunningGateway(tmp_path, config_of(f"base_url: '{upstream.base_url}'"))
    with gateway, openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        one = client.responses.create(model="m0", input="first")
        assert refusal(client.responses.create, model="m0", input="x", previous_response_id=one.id)[0] == 400
        assert not (gateway.data_dir / "state.key").exists()
        gateway.config.write_text(config_of(f"base_url: '{upstream.base_url}', state: gateway"))
        os.kill(gateway.process.pid, 1)
        deadline = time.monotonic() + 30
        while not re.search(r"configuration_reloaded", gateway.log_path.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        two = client.responses.create(model="m0", input="second")
        assert (
            client.responses.create(model="m0", input="on", previous_response_id=two.id).output_text
            == "second | second | on"
        )
        # It was the upstream's to keep, and was not kept.
        assert refusal(client.responses.create, model="m0", input="x", previous_response_id=one.id) == NOT_FOUND
        told = json.dumps([line["event"] for line in gateway.log()])
        assert "internal_error" not in told


def test_a_turn_of_one_worker_is_there_for_the_other(tmp_path, upstream):
    stores = Stores()
    stores.start()
    config = config_of(f"base_url: '{upstream.base_url}', state: gateway")
    try:
        fleet = Fleet(tmp_path, stores, 2, config)
        fleet.environment["HEADGATE_STATE_KEYS"] = Fernet.generate_key().decode()
        with fleet:
            previous: dict[str, str] = {}
            for number in range(24):
                # A connection of its own, so that either worker may have it.
                with openai.OpenAI(base_url=fleet.base_url, api_key=fleet.key, max_retries=0) as client:
                    told = client.responses.create(model="m0", input=f"turn {number % 6}", **previous)
                    assert told.output_text.startswith("turn 0")
                    previous = {} if number % 6 == 5 else {"previous_response_id": told.id}
            assert {line["process"] for line in fleet.lines("request")} == {"worker-0", "worker-1"}
    finally:
        stores.close()
