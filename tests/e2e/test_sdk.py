"""Every example of the documents that this project began from, through the official SDK."""

import asyncio
import time

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.fakes.fleet import wait_for

SYSTEM = "You are a helpful assistant."


@pytest.fixture(scope="module")
def stores(simulated):
    """A client whose key was given files too."""
    families = "files,responses,conversations,chat"
    key = simulated.json("keys", "create", "--team", "default", "--name", "stores", "--endpoints", families)["key"]
    with OpenAI(base_url=simulated.base_url, api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def client(simulated):
    with OpenAI(base_url=simulated.base_url, api_key=simulated.key, max_retries=0) as client:
        yield client


def test_s0_chat_completion(client):
    answer = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Hello!"}]
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_1_1_array_and_plain_input(client):
    array = client.responses.create(
        model="gpt-4o", input=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Hello!"}]
    )
    plain = client.responses.create(model="gpt-4o", input="Tell me a joke.")
    for answer in (array, plain):
        assert answer.output_text
        assert answer.usage.input_tokens > 0
        assert answer.usage.output_tokens > 0


def test_1_2_instructions(client):
    assert client.responses.create(model="gpt-4o", instructions=SYSTEM, input="Hello!").output_text


def test_1_3_anatomy(client):
    answer = client.responses.create(model="gpt-4o", input="Hello!")
    assert answer.id.startswith("resp_")
    assert (answer.model, answer.status) == ("gpt-4o", "completed")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.output_tokens_details.reasoning_tokens == 0
    assert (answer.output[0].type, answer.output[0].role) == ("message", "assistant")


def test_2_1_temperature_and_top_p(client):
    for settings in ({"temperature": 0}, {"temperature": 1.2}, {"top_p": 0.5}):
        assert client.responses.create(model="gpt-4o", input="Write a line.", **settings).output_text


def test_2_2_a_cut_answer_is_incomplete(client):
    answer = client.responses.create(model="gpt-4o", input="[[sim: tokens=400]] Write a lot.", max_output_tokens=200)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens <= 200


def test_2_3_the_same_call_twice_at_temperature_zero(client):
    first, second = (
        client.responses.create(model="gpt-4o", input="What is 2+2?", temperature=0, store=False) for _ in range(2)
    )
    assert first.output_text == second.output_text


def test_3_1_streaming(client):
    created, text, completed = None, "", None
    for event in client.responses.create(model="gpt-4o", input="Tell me a story.", stream=True):
        if event.type == "response.created":
            created = event.response.id
        elif event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.completed":
            completed = event.response
    assert completed.id == created
    assert completed.output_text == text
    assert completed.usage.output_tokens > 0


async def test_3_2_streaming_async(simulated):
    async with AsyncOpenAI(base_url=simulated.base_url, api_key=simulated.key) as client:
        stream = await client.responses.create(model="gpt-4o", input="Tell me a story.", stream=True)
        kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") > 1


def test_3_3_by_event_type_with_the_stream_helper(client):
    with client.responses.stream(model="gpt-4o", input="Tell me a story.") as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert numbers == sorted(set(numbers))
    assert final.output_text


def test_3_3_a_failed_stream_says_why(client):
    events = list(client.responses.create(model="gpt-4o", input="[[sim: fail_after=4]] Go.", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_4_reasoning(client, effort):
    answer = client.responses.create(
        model="o4-mini", input="How many primes are there below 20?", reasoning={"effort": effort, "summary": "auto"}
    )
    items = [item for item in answer.output if item.type == "reasoning"]
    assert items
    assert items[0].summary[0].text
    assert answer.usage.output_tokens_details.reasoning_tokens > 0


def test_5_1_full_and_trimmed_history(client):
    history = [{"role": "user", "content": "My name is Ada."}]
    answer = client.responses.create(model="gpt-4o", input=history, temperature=0)
    history += [item.model_dump(exclude_none=True) for item in answer.output]
    history.append({"role": "user", "content": "What is my name?"})
    assert "Ada" in client.responses.create(model="gpt-4o", input=history, temperature=0).output_text
    assert client.responses.create(model="gpt-4o", input=history[-2:], temperature=0).output_text


def test_5_2_previous_response_id(client):
    first = client.responses.create(model="gpt-4o", input="My name is Ada.", temperature=0)
    second = client.responses.create(
        model="gpt-4o", input="What is my name?", previous_response_id=first.id, temperature=0
    )
    assert "Ada" in second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens


def test_tools_structured_output_embeddings_and_models(client):
    tool = {
        "type": "function",
        "name": "get_capital",
        "parameters": {"type": "object", "properties": {"country": {"type": "string"}}, "required": ["country"]},
    }
    called = client.responses.create(model="gpt-4o", input="Capital?", tools=[tool], tool_choice="required")
    assert called.output[-1].type == "function_call"
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    text = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
    assert '"n"' in client.responses.create(model="gpt-4o", input="A number.", text=text).output_text
    assert len(client.embeddings.create(model="text-embedding-3-small", input=["a", "b"]).data) == 2
    assert "sim-large" in [model.id for model in client.models.list()]


def test_conversations(client):
    said = {"type": "message", "role": "user", "content": "My name is Ada."}
    made = client.conversations.create(items=[said])
    answer = client.responses.create(model="gpt-4o", input="What is my name?", conversation=made.id, temperature=0)
    assert "Ada" in answer.output_text
    items = list(client.conversations.items.list(made.id, limit=2, order="asc"))
    assert [item.role for item in items] == ["user", "user", "assistant"]
    client.conversations.items.delete(items[0].id, conversation_id=made.id)
    assert len(list(client.conversations.items.list(made.id))) == 2
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(made.id)


def test_background_is_polled_and_cancelled(client):
    answer = client.responses.create(model="gpt-4o", input="What is 2+2?", background=True)
    assert answer.usage is None
    deadline = time.monotonic() + 10
    while answer.status in {"queued", "in_progress"} and time.monotonic() < deadline:
        time.sleep(0.02)
        answer = client.responses.retrieve(answer.id)
    assert (answer.status, answer.usage.output_tokens > 0) == ("completed", True)
    long = client.responses.create(model="gpt-4o", input="[[sim: stall_after=4 stall_s=3600]] Go.", background=True)
    assert client.responses.cancel(long.id).status == "cancelled"


def test_a_background_stream_is_taken_up_again(client):
    seen = []
    with client.responses.create(
        model="gpt-4o", input="[[sim: tokens=30 pace_ms=5]] Go.", background=True, stream=True
    ) as stream:
        for event in stream:
            seen.append(event)
            if len(seen) == 8:
                break
    seen += client.responses.retrieve(seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number)
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"


def test_files_go_up_and_down_and_their_list_pages_by_itself(stores):
    ids = [stores.files.create(file=(f"{n}.txt", b"body %d" % n), purpose="user_data").id for n in range(5)]
    assert [file.id for file in stores.files.list(limit=2, order="asc", purpose="user_data")] == ids
    assert stores.files.content(ids[3]).read() == b"body 3"
    content = [{"type": "input_file", "file_id": ids[0]}, {"type": "input_text", "text": "What is 2+2?"}]
    assert "4" in stores.responses.create(model="gpt-4o", input=[{"role": "user", "content": content}]).output_text
    assert all(stores.files.delete(file_id).deleted for file_id in ids)
    assert list(stores.files.list()) == []


def test_lists_of_what_is_stored_page_by_themselves(stores):
    messages = [{"role": "user", "content": "Hello!"}]
    ids = [stores.chat.completions.create(model="gpt-4o", messages=messages, store=True).id for _ in range(3)]
    assert [chat.id for chat in stores.chat.completions.list(limit=2, order="asc")] == ids
    answer = stores.responses.create(model="gpt-4o", input=[{"role": "user", "content": text} for text in "abc"])
    assert [item.content[0].text for item in stores.responses.input_items.list(answer.id, limit=1, order="asc")] == [
        "a",
        "b",
        "c",
    ]


def test_a_wrong_key_is_an_authentication_error(simulated):
    with (
        OpenAI(base_url=simulated.base_url, api_key="sk-hg-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.responses.create(model="gpt-4o", input="Hello!")
    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id


async def test_many_at_once(simulated):
    async with AsyncOpenAI(base_url=simulated.base_url, api_key=simulated.key) as client:
        answers = await asyncio.gather(
            *(client.responses.create(model="gpt-4o", input=f"Question {number}") for number in range(17))
        )
    assert len({answer.id for answer in answers}) == 17


def test_usage_metrics_and_log_agree(simulated):
    """Run last in this file: it looks at what the others left."""
    # The last records are on their way into the ledger.
    wait_for(lambda: simulated.metrics()["headgate_journal_records"] == 0)
    rows = simulated.usage("team,key,model")
    assert simulated.check_ledger()["ok"]
    assert {row["team"] for row in rows} == {"default"}
    assert all(float(row["cost_usd"]) > 0 for row in rows if row["model"] == "gpt-4o")
    metrics = simulated.metrics()
    requests = sum(value for name, value in metrics.items() if name.startswith("headgate_requests_total{"))
    cost = sum(value for name, value in metrics.items() if name.startswith("headgate_cost_usd_total{"))
    assert requests == sum(row["requests"] for row in rows)
    assert cost == pytest.approx(sum(float(row["cost_usd"]) for row in rows), abs=1e-9)
    lines = [line for line in simulated.log() if line["event"] == "request"]
    assert len(lines) == requests
    assert httpx.get(f"{simulated.url}/readyz").json()["status"] == "ready"
