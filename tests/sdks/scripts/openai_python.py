"""What an application does through the SDK for Python: ``python openai_python.py sync|async SCENARIO …``.

The address and the key are in the environment, where the SDK looks for them; nothing here knows of a gateway but for the
headers that it adds.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import openai
from pydantic import BaseModel
from scenarios import Scenarios, done, each, opened

MODEL = "gpt-4o"
SYSTEM = "You are a helpful assistant."
RUNNING = {"queued", "in_progress"}
TOOL_PARAMETERS = {
    "type": "object",
    "properties": {"country": {"type": "string"}},
    "required": ["country"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "name": "get_capital", "parameters": TOOL_PARAMETERS, "strict": True}

scenario = Scenarios()
is_sync = sys.argv[1:2] == ["sync"]


class Sum(BaseModel):
    total: int
    says: str


def client_for(**settings: Any) -> Any:
    return openai.OpenAI(**settings) if is_sync else openai.AsyncOpenAI(**settings)


def counting(**settings: Any) -> tuple[Any, list[str]]:
    """A client, and what it has sent so far."""
    sent: list[str] = []

    def count(request: Any) -> None:
        sent.append(request.headers.get("x-stainless-retry-count", ""))

    async def count_async(request: Any) -> None:
        count(request)

    if is_sync:
        http = openai.DefaultHttpxClient(event_hooks={"request": [count]})
    else:
        http = openai.DefaultAsyncHttpxClient(event_hooks={"request": [count_async]})
    return client_for(http_client=http, **settings), sent


# -- the documents' examples --------------------------------------------------------------------


@scenario
async def s0_chat(client: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "What is 2+2?"}]
    answer = await done(client.chat.completions.create(model=MODEL, messages=messages))
    return {
        "says 4": "4" in answer.choices[0].message.content,
        "finish_reason": answer.choices[0].finish_reason,
        "adds up": answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens,
    }


@scenario
async def s0_chat_stream(client: Any) -> dict[str, Any]:
    stream = await done(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "What is 2+2?"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    chunks = [chunk async for chunk in each(stream)]
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return {
        "says 4": "4" in "".join(choice.delta.content or "" for choice in choices),
        "finish_reason": choices[-1].finish_reason,
        "usage": chunks[-1].usage.completion_tokens > 0,
    }


@scenario
async def s1_1_input(client: Any) -> dict[str, Any]:
    array = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "What is 2+2?"}]
    answers = [await done(client.responses.create(model=MODEL, input=given)) for given in (array, "What is 2+2?")]
    return {
        "say 4": ["4" in answer.output_text for answer in answers],
        "usage": [answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0 for answer in answers],
    }


@scenario
async def s1_2_instructions(client: Any) -> dict[str, Any]:
    answer = await done(client.responses.create(model=MODEL, instructions=SYSTEM, input="What is 2+2?"))
    return {"says 4": "4" in answer.output_text, "instructions": answer.instructions}


@scenario
async def s1_3_anatomy(client: Any) -> dict[str, Any]:
    answer = await done(client.responses.create(model=MODEL, input="Hello!"))
    usage = answer.usage
    return {
        "id": answer.id[:5],
        "model": answer.model,
        "status": answer.status,
        "text": len(answer.output_text) > 0,
        "output": [[item.type, item.role] for item in answer.output],
        "adds up": usage.total_tokens == usage.input_tokens + usage.output_tokens,
        "details": [usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens],
    }


@scenario
async def s2_1_sampling(client: Any) -> dict[str, Any]:
    answers = [
        await done(client.responses.create(model=MODEL, input="What is 2+2?", **settings))
        for settings in ({"temperature": 0}, {"temperature": 1.2}, {"top_p": 0.5})
    ]
    return {
        "say 4": ["4" in answer.output_text for answer in answers],
        "told": [answers[1].temperature, answers[2].top_p],
    }


@scenario
async def s2_2_cut(client: Any) -> dict[str, Any]:
    answer = await done(
        client.responses.create(model=MODEL, input="[[sim: tokens=400]] Write a lot.", max_output_tokens=200)
    )
    return {
        "status": answer.status,
        "reason": answer.incomplete_details.reason,
        "output_tokens": answer.usage.output_tokens,
    }


@scenario
async def s2_3_twice(client: Any) -> dict[str, Any]:
    call = {"model": MODEL, "input": f"How many is 3+4? {sys.argv[1]}", "temperature": 0, "store": False}
    raw = [await done(client.responses.with_raw_response.create(**call)) for _ in range(2)]
    first, second = (answer.parse() for answer in raw)
    return {
        "equal": first.output_text == second.output_text,
        "cache": raw[1].headers["x-headgate-cache"],
        "cost of the second": float(raw[1].headers["x-headgate-cost-usd"]),
    }


@scenario
async def s3_1_stream(client: Any) -> dict[str, Any]:
    """Also 3.2: the client that does not block runs this too."""
    stream = await done(client.responses.create(model=MODEL, input="Tell me a story.", stream=True))
    events = [event async for event in each(stream)]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    completed = events[-1].response
    numbers = [event.sequence_number for event in events]
    return {
        "ends": [events[0].type, events[-1].type],
        "one id": events[0].response.id == completed.id,
        "in order": numbers == list(range(numbers[0], numbers[0] + len(numbers))),
        "joined": "".join(deltas) == completed.output_text,
        "in parts": len(deltas) > 1,
        "usage": completed.usage.output_tokens > 0,
    }


@scenario
async def s3_3_failed_stream(client: Any) -> dict[str, Any]:
    stream = await done(client.responses.create(model=MODEL, input="[[sim: fail_after=4]] Go.", stream=True))
    events = [event async for event in each(stream)]
    return {"last": events[-1].type, "code": events[-1].response.error.code}


@scenario
async def s3_3_cut_stream(client: Any) -> dict[str, Any]:
    """The provider's connection ends in the middle: the client is told, under the id that it knows."""
    stream = await done(client.responses.create(model=MODEL, input="[[sim: cut_after=6]] Go.", stream=True))
    events = [event async for event in each(stream)]
    return {
        "last": events[-1].type,
        "code": events[-1].response.error.code,
        "one id": events[0].response.id == events[-1].response.id,
    }


@scenario
async def s4_reasoning(client: Any) -> dict[str, Any]:
    found = {}
    for effort in ("low", "high"):
        answer = await done(
            client.responses.create(
                model="o4-mini", input="How many primes are below 20?", reasoning={"effort": effort, "summary": "auto"}
            )
        )
        summary = next(item for item in answer.output if item.type == "reasoning").summary
        found[effort] = [len(summary[0].text) > 0, answer.usage.output_tokens_details.reasoning_tokens > 0]
    return found


@scenario
async def s5_1_history(client: Any) -> dict[str, Any]:
    """Also 5.2a: the same with its beginning left out."""
    history: list[Any] = [{"role": "user", "content": "My name is Ada."}]
    answer = await done(client.responses.create(model=MODEL, input=history, temperature=0))
    history += answer.output
    history.append({"role": "user", "content": "What is my name?"})
    whole = await done(client.responses.create(model=MODEL, input=history, temperature=0))
    trimmed = await done(client.responses.create(model=MODEL, input=history[-1:], temperature=0))
    return {"whole knows": "Ada" in whole.output_text, "trimmed knows": "Ada" in trimmed.output_text}


@scenario
async def s5_2_previous_response(client: Any) -> dict[str, Any]:
    first = await done(client.responses.create(model=MODEL, input="My name is Ada.", temperature=0))
    second = await done(
        client.responses.create(model=MODEL, input="What is my name?", previous_response_id=first.id, temperature=0)
    )
    return {
        "knows": "Ada" in second.output_text,
        "goes on from": second.previous_response_id == first.id,
        "more input": second.usage.input_tokens > first.usage.input_tokens,
    }


# -- helpers of the SDK -------------------------------------------------------------------------


@scenario
async def stream_helper(client: Any) -> dict[str, Any]:
    async with opened(client.responses.stream(model=MODEL, input="What is 2+2?")) as stream:
        kinds = [event.type async for event in each(stream)]
        final = await done(stream.get_final_response())
    return {"ends": [kinds[0], kinds[-1]], "says 4": "4" in final.output_text}


@scenario
async def stream_helper_cut(client: Any) -> dict[str, Any]:
    """The helper takes the end that the gateway writes for one of the same response."""
    async with opened(client.responses.stream(model=MODEL, input="[[sim: cut_after=6]] Go.")) as stream:
        kinds = [event.type async for event in each(stream)]
    return {"ends": [kinds[0], kinds[-1]]}


@scenario
async def chat_stream_helper(client: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "What is 2+2?"}]
    async with opened(client.chat.completions.stream(model=MODEL, messages=messages)) as stream:
        kinds = {event.type async for event in each(stream)}
        final = await done(stream.get_final_completion())
    return {"done": "content.done" in kinds, "says 4": "4" in final.choices[0].message.content}


@scenario
async def parsed(client: Any) -> dict[str, Any]:
    answer = await done(client.responses.parse(model=MODEL, input="A sum.", text_format=Sum))
    return {
        "total": type(answer.output_parsed.total).__name__ == "int",
        "says": isinstance(answer.output_parsed.says, str),
    }


@scenario
async def chat_parsed(client: Any) -> dict[str, Any]:
    answer = await done(
        client.chat.completions.parse(
            model=MODEL, messages=[{"role": "user", "content": "A sum."}], response_format=Sum
        )
    )
    found = answer.choices[0].message.parsed
    return {"total": type(found.total).__name__ == "int", "says": isinstance(found.says, str)}


@scenario
async def tools(client: Any) -> dict[str, Any]:
    question: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
    called = await done(
        client.responses.create(model=MODEL, input=question, tools=[TOOL], tool_choice="required", temperature=0)
    )
    call = called.output[-1]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Paris"}
    answer = await done(
        client.responses.create(model=MODEL, input=[*question, *called.output, result], tools=[TOOL], temperature=0)
    )
    stream = await done(
        client.responses.create(model=MODEL, input=question, tools=[TOOL], tool_choice="required", stream=True)
    )
    kinds = {event.type async for event in each(stream)}
    return {
        "called": [call.type, call.name],
        "answered": len(answer.output_text) > 0,
        "streamed": {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds,
    }


@scenario
async def chat_tools(client: Any) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "get_capital", "parameters": TOOL_PARAMETERS}}
    messages: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
    called = await done(
        client.chat.completions.create(model=MODEL, messages=messages, tools=[tool], tool_choice="required")
    )
    message = called.choices[0].message
    messages += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Paris"}]
    answer = await done(client.chat.completions.create(model=MODEL, messages=messages, tools=[tool]))
    return {
        "finish_reason": called.choices[0].finish_reason,
        "called": message.tool_calls[0].function.name,
        "answered": len(answer.choices[0].message.content) > 0,
    }


@scenario
async def raw_headers(client: Any) -> dict[str, Any]:
    raw = await done(client.responses.with_raw_response.create(model=MODEL, input="Hello!"))
    answer = raw.parse()
    async with opened(client.responses.with_streaming_response.create(model=MODEL, input="Hello!")) as streamed:
        type_of_body = streamed.headers["content-type"]
    return {
        "status": raw.status_code,
        "one request id": answer._request_id == raw.headers["x-request-id"] != "",
        "the gateway's id": len(raw.headers["x-headgate-request-id"]) > 0,
        "upstream": raw.headers["x-headgate-upstream"],
        "cost": float(raw.headers["x-headgate-cost-usd"]) > 0,
        "content-type": type_of_body.partition(";")[0],
    }


# -- errors and retries -------------------------------------------------------------------------


async def refusal(call: Any) -> list[Any]:
    """The class, the status and the code of the error that a call ends with."""
    try:
        await done(call())
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code]
    return ["nothing"]


@scenario
async def errors(client: Any) -> dict[str, Any]:
    once = client_for(max_retries=0)
    wrong = client_for(api_key="sk-hg-wrong", max_retries=0)

    def steered(status: int) -> Any:
        return lambda: once.responses.create(model=MODEL, input=f"[[sim: error={status} error_code=a_code]] Go.")

    return {
        "wrong key": await refusal(lambda: wrong.responses.create(model=MODEL, input="Hello!")),
        "not a number": await refusal(lambda: once.responses.create(model=MODEL, input="Hello!", temperature="warm")),
        "unknown response": await refusal(lambda: once.responses.retrieve("resp_unknown")),
        "unknown previous": await refusal(
            lambda: once.responses.create(model=MODEL, input="Hello!", previous_response_id="resp_unknown")
        ),
        "unknown file": await refusal(lambda: once.files.retrieve("file-unknown")),
        "400": await refusal(steered(400)),
        "401": await refusal(steered(401)),
        "404": await refusal(steered(404)),
        "409": await refusal(steered(409)),
        "422": await refusal(steered(422)),
        "429": await refusal(steered(429)),
        "500": await refusal(steered(500)),
        "503": await refusal(steered(503)),
    }


@scenario
async def forbidden(client: Any) -> dict[str, Any]:
    """A key that was not given files."""
    narrow = client_for(api_key=os.environ["NARROW_KEY"], max_retries=0)
    return {"files": await refusal(narrow.files.list)}


@scenario
async def a_spent_budget_is_asked_once(client: Any) -> dict[str, Any]:
    spent, sent = counting(api_key=os.environ["SPENT_KEY"])
    return {"error": await refusal(lambda: spent.responses.create(model=MODEL, input="Hello!")), "sent": len(sent)}


@scenario
async def retries(client: Any) -> dict[str, Any]:
    counted, sent = counting()
    name = f"{openai.__version__}-{sys.argv[1]}"
    kept = await refusal(
        lambda: counted.responses.create(
            model=MODEL, input="[[sim: error=429 error_code=rate_limit_exceeded retry_after=0]] Go."
        )
    )
    kept_sent = list(sent)
    sent.clear()
    answer = await done(
        counted.responses.create(
            model=MODEL, input=f"[[sim: error=429 error_code=rate_limit_exceeded times=2 retry_after=0 tag={name}]] 2+2"
        )
    )
    passed_sent = list(sent)
    sent.clear()
    refused = await refusal(lambda: counted.responses.create(model=MODEL, input="[[sim: error=400]] Go."))
    return {
        "429 for ever": [kept, kept_sent],
        "429 twice": [answer.status, passed_sent],
        "400": [refused[0], list(sent)],
    }


# -- what is stored -----------------------------------------------------------------------------


@scenario
async def stored_response(client: Any) -> dict[str, Any]:
    items = [{"role": "user", "content": text} for text in ("one", "two", "three")]
    answer = await done(client.responses.create(model=MODEL, input=items))
    again = await done(client.responses.retrieve(answer.id))
    listed = client.responses.input_items.list(answer.id, limit=1, order="asc")
    texts = [item.content[0].text async for item in each(listed)]
    await done(client.responses.delete(answer.id))
    return {
        "same": again.output_text == answer.output_text,
        "items": texts,
        "gone": await refusal(lambda: client.responses.retrieve(answer.id)),
    }


@scenario
async def background(client: Any) -> dict[str, Any]:
    answer = first = await done(client.responses.create(model=MODEL, input="What is 2+2?", background=True))
    while answer.status in RUNNING:
        await asyncio.sleep(0.05)
        answer = await done(client.responses.retrieve(answer.id))
    long = await done(
        client.responses.create(model=MODEL, input="[[sim: stall_after=4 stall_s=3600]] Go.", background=True)
    )
    cancelled = await done(client.responses.cancel(long.id))
    return {
        "first": [first.status in RUNNING, first.usage],
        "then": [answer.status, "4" in answer.output_text, answer.usage.output_tokens > 0],
        "cancelled": cancelled.status,
    }


@scenario
async def background_resumed(client: Any) -> dict[str, Any]:
    """A stream that is left after a few events, and taken up where it was left."""
    stream = await done(
        client.responses.create(model=MODEL, input="[[sim: tokens=30 pace_ms=5]] Go.", background=True, stream=True)
    )
    seen: list[Any] = []
    async for event in each(stream):
        seen.append(event)
        if len(seen) == 8:
            break
    await done(stream.close())
    resumed = await done(
        client.responses.retrieve(seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number)
    )
    seen += [event async for event in each(resumed)]
    return {
        "in order": [event.sequence_number for event in seen] == list(range(len(seen))),
        "last": seen[-1].type,
        "joined": "".join(event.delta for event in seen if event.type == "response.output_text.delta")
        == seen[-1].response.output_text,
    }


@scenario
async def conversations(client: Any) -> dict[str, Any]:
    made = await done(
        client.conversations.create(
            items=[{"type": "message", "role": "user", "content": "My name is Ada."}], metadata={"topic": "names"}
        )
    )
    answer = await done(
        client.responses.create(model=MODEL, input="What is my name?", conversation=made.id, temperature=0)
    )
    items = [item async for item in each(client.conversations.items.list(made.id, limit=2, order="asc"))]
    one = await done(client.conversations.items.retrieve(items[0].id, conversation_id=made.id))
    more = await done(
        client.conversations.items.create(made.id, items=[{"type": "message", "role": "user", "content": "Thank you."}])
    )
    await done(client.conversations.items.delete(items[0].id, conversation_id=made.id))
    left = [item.id async for item in each(client.conversations.items.list(made.id))]
    changed = await done(client.conversations.update(made.id, metadata={"topic": "people"}))
    read = await done(client.conversations.retrieve(made.id))
    deleted = await done(client.conversations.delete(made.id))
    return {
        "knows": "Ada" in answer.output_text,
        "items": [item.role for item in items],
        "one": one.id == items[0].id,
        "added": len(more.data),
        "left": [len(left), items[0].id in left],
        "metadata": [changed.metadata["topic"], read.metadata["topic"]],
        "deleted": deleted.deleted,
        "gone": await refusal(lambda: client.conversations.retrieve(made.id)),
    }


@scenario
async def files(client: Any) -> dict[str, Any]:
    bodies = [f"body {number}\n".encode() for number in range(5)]
    made = [
        await done(client.files.create(file=(f"{number}.txt", body), purpose="user_data"))
        for number, body in enumerate(bodies)
    ]
    ids = [file.id for file in made]
    listed = [file.id async for file in each(client.files.list(limit=2, order="asc", purpose="user_data"))]
    content = await done(client.files.content(ids[3]))
    read = await done(client.files.retrieve(ids[3]))
    deleted = [(await done(client.files.delete(file_id))).deleted for file_id in ids]
    left = [file.id async for file in each(client.files.list())]
    return {
        "listed in order": [file_id for file_id in listed if file_id in ids] == ids,
        "content": content.read().decode() if is_sync else (await content.aread()).decode(),
        "read": [read.filename, read.bytes, read.purpose],
        "deleted": deleted,
        "left": len(set(left) & set(ids)),
        "gone": await refusal(lambda: client.files.content(ids[0])),
    }


@scenario
async def file_as_input(client: Any) -> dict[str, Any]:
    file = await done(client.files.create(file=("a.txt", b"hello"), purpose="user_data"))
    content = [{"type": "input_file", "file_id": file.id}, {"type": "input_text", "text": "What is 2+2?"}]
    answer = await done(client.responses.create(model=MODEL, input=[{"role": "user", "content": content}]))
    foreign = [{"type": "input_file", "file_id": "file-unknown"}]
    await done(client.files.delete(file.id))
    return {
        "says 4": "4" in answer.output_text,
        "unknown": await refusal(
            lambda: client.responses.create(model=MODEL, input=[{"role": "user", "content": foreign}])
        ),
    }


@scenario
async def stored_chats(client: Any) -> dict[str, Any]:
    label = {"run": f"{openai.__version__}-{sys.argv[1]}"}
    ids = [
        (
            await done(
                client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": f"Say {n}"}], store=True, metadata=label
                )
            )
        ).id
        for n in range(3)
    ]
    listed = [chat.id async for chat in each(client.chat.completions.list(limit=2, order="asc", metadata=label))]
    messages = [message.role async for message in each(client.chat.completions.messages.list(ids[0]))]
    return {"listed": listed == ids, "messages": messages}


@scenario
async def uploads_and_batches(client: Any) -> dict[str, Any]:
    line = b'{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"gpt-4o","input":"What is 2+2?"}}\n'
    upload = await done(
        client.uploads.create(bytes=2 * len(line), filename="b.jsonl", mime_type="application/jsonl", purpose="batch")
    )
    parts = [(await done(client.uploads.parts.create(upload.id, data=part))).id for part in (line, line)]
    whole = (await done(client.uploads.complete(upload.id, part_ids=parts))).file
    batch = await done(client.batches.create(input_file_id=whole.id, endpoint="/v1/responses", completion_window="24h"))
    while batch.status in {"validating", "in_progress", "finalizing"}:
        await asyncio.sleep(0.05)
        batch = await done(client.batches.retrieve(batch.id))
    output = await done(client.files.content(batch.output_file_id))
    text = (output.read() if is_sync else await output.aread()).decode()
    listed = [each_one.id async for each_one in each(client.batches.list(limit=1))]
    return {"status": batch.status, "answers": len(text.splitlines()), "listed": batch.id in listed}


@scenario
async def vector_stores(client: Any) -> dict[str, Any]:
    file = await done(client.files.create(file=("a.txt", b"Paris is the capital of France."), purpose="assistants"))
    store = await done(client.vector_stores.create(name="facts", file_ids=[file.id]))
    files = [each_one.id async for each_one in each(client.vector_stores.files.list(store.id))]
    found = [row.filename async for row in each(client.vector_stores.search(store.id, query="capital of France"))]
    deleted = await done(client.vector_stores.delete(store.id))
    await done(client.files.delete(file.id))
    return {"files": files == [file.id], "found": found, "deleted": deleted.deleted}


# -- the rest of the API ------------------------------------------------------------------------


@scenario
async def input_tokens(client: Any) -> dict[str, Any]:
    counted = await done(client.responses.input_tokens.count(model=MODEL, input="What is 2+2?"))
    answer = await done(client.responses.create(model=MODEL, input="What is 2+2?"))
    return {"object": counted.object, "as billed": counted.input_tokens == answer.usage.input_tokens}


@scenario
async def compaction(client: Any) -> dict[str, Any]:
    history = [{"role": "user", "content": "My name is Ada."}]
    answer = await done(client.responses.compact(model=MODEL, input=history))
    return {"object": answer.object, "usage": answer.usage.input_tokens > 0, "kinds": answer.output[-1].type}


@scenario
async def embeddings_models_moderations(client: Any) -> dict[str, Any]:
    vectors = await done(client.embeddings.create(model="text-embedding-3-small", input=["a", "b"]))
    names = [model.id async for model in each(client.models.list())]
    one = await done(client.models.retrieve("sim-large"))
    moderated = await done(client.moderations.create(input="Good morning."))
    return {
        "dimensions": [len(row.embedding) for row in vectors.data],
        "models": "sim-large" in names,
        "one": one.id,
        "flagged": moderated.results[0].flagged,
    }


@scenario
async def pictures_and_sound(client: Any) -> dict[str, Any]:
    picture = await done(client.images.generate(model="gpt-image-1", prompt="A cat."))
    speech = await done(client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hello!"))
    heard = await done(client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", b"RIFF" * 50)))
    return {
        "picture": len(picture.data[0].b64_json) > 0,
        "speech": len(speech.read() if is_sync else await speech.aread()) > 0,
        "heard": len(heard.text) > 0,
    }


@scenario
async def socket(client: Any) -> dict[str, Any]:
    """Two turns over one WebSocket, the second of which goes on from the first, which is not stored."""
    async with opened(client.responses.connect()) as connection:

        async def turn(**members: Any) -> list[Any]:
            await done(connection.response.create(model=MODEL, store=False, temperature=0, **members))
            events: list[Any] = []
            async for event in each(connection):
                events.append(event)
                if event.type in {"response.completed", "response.failed", "error"}:
                    break
            return events

        first = await turn(input="My name is Ada.")
        second = await turn(input="What is my name?", previous_response_id=first[-1].response.id)
    return {
        "ends": [first[0].type, first[-1].type],
        "knows": "Ada" in second[-1].response.output_text,
        "usage": second[-1].response.usage.output_tokens > 0,
    }


@scenario
async def many_at_once(client: Any) -> dict[str, Any]:
    async def ask(number: int) -> Any:
        if is_sync:
            return await asyncio.to_thread(client.responses.create, model=MODEL, input=f"Question {number}")
        return await client.responses.create(model=MODEL, input=f"Question {number}")

    answers = await asyncio.gather(*(ask(number) for number in range(17)))
    return {"answers": len({answer.id for answer in answers})}


asyncio.run(scenario.run(sys.argv[2:], client_for()))
