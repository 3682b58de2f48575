from __future__ import annotations

import openai
import pytest

from app.simulator.conversation_store import ConversationStore, KeptConversation


def said(text, role="user"):
    return {"type": "message", "role": role, "content": text}


async def test_a_conversation_is_made_read_changed_and_deleted(client):
    made = await client.conversations.create(metadata={"a": "b"}, items=[said("My name is Ada.")])
    assert made.id.startswith("conv_") and made.object == "conversation" and made.metadata == {"a": "b"}
    assert await client.conversations.retrieve(made.id) == made
    changed = await client.conversations.update(made.id, metadata={"c": "d"})
    assert (await client.conversations.retrieve(made.id)).metadata == {"c": "d"} == changed.metadata
    gone = await client.conversations.delete(made.id)
    assert (gone.deleted, gone.object) == (True, "conversation.deleted")
    for call in (
        client.conversations.retrieve(made.id),
        client.conversations.delete(made.id),
        client.conversations.items.list(made.id),
        client.responses.create(model="sim-mini", input="x", conversation=made.id),
    ):
        with pytest.raises(openai.NotFoundError, match=made.id):
            await call


async def test_items_are_added_listed_read_and_deleted(client):
    made = await client.conversations.create()
    added = await client.conversations.items.create(made.id, items=[said(f"line {n}") for n in range(5)])
    ids = [item.id for item in added.data]
    assert len(set(ids)) == 5 and added.first_id == ids[0] and added.last_id == ids[-1]
    listed = [item.id async for item in client.conversations.items.list(made.id, limit=2, order="asc")]
    assert listed == ids
    newest = await client.conversations.items.list(made.id, limit=2)
    assert [item.id for item in newest.data] == ids[:2:-1] and newest.has_more
    one = await client.conversations.items.retrieve(ids[1], conversation_id=made.id)
    assert one.content[0].text == "line 1"
    assert (await client.conversations.items.delete(ids[1], conversation_id=made.id)).id == made.id
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.retrieve(ids[1], conversation_id=made.id)
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.delete(ids[1], conversation_id=made.id)
    assert len((await client.conversations.items.list(made.id)).data) == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_goes_on_from_it_and_is_added_to_it(client, stream):
    made = await client.conversations.create(items=[said("My name is Ada.")])

    async def ask(text, conversation):
        answer = await client.responses.create(
            model="sim-reasoning", input=text, conversation=conversation, stream=stream, store=False
        )
        return [event async for event in answer][-1].response if stream else answer

    first = await ask("What is my name?", made.id)
    assert "Ada" in first.output_text
    assert first.conversation.id == made.id
    second = await ask("What is my name?", {"id": made.id})
    assert second.usage.input_tokens > first.usage.input_tokens
    listed = [item async for item in client.conversations.items.list(made.id, order="asc")]
    assert [item.type for item in listed] == ["message", *["message", "reasoning", "message"] * 2]
    assert listed[3].id == first.output[1].id


async def test_a_background_response_is_added_when_it_is_done(client):
    made = await client.conversations.create()
    begun = await client.responses.create(
        model="sim-mini", input="Hi [[sim: queue_ms=500]]", conversation=made.id, background=True
    )
    assert begun.conversation.id == made.id
    assert (await client.conversations.items.list(made.id)).data == []
    [event async for event in await client.responses.retrieve(begun.id, stream=True)]
    assert len((await client.conversations.items.list(made.id)).data) == 2


async def test_items_of_conversations_are_referred_to(client):
    made = await client.conversations.create(items=[said("My colour is red.")])
    (item,) = (await client.conversations.items.list(made.id)).data
    answer = await client.responses.create(
        model="sim-mini", input=[{"type": "item_reference", "id": item.id}, said("What is my colour?")]
    )
    assert "red" in answer.output_text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"items": 5}, "items"),
        ({"items": [5]}, "input[0]"),
        ({"items": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"items": [said("x")] * 21}, "items"),
        ({"metadata": []}, None),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    ],
)
async def test_what_makes_no_sense_is_refused(caller, body, param):
    reply = await caller.post("/v1/conversations", body)
    if param is None:
        assert reply.status == 200
    else:
        assert (reply.status, reply.json()["error"]["param"]) == (400, param)


async def test_both_kinds_of_memory_at_once_are_refused(caller):
    reply = await caller.respond(conversation="conv_1", previous_response_id="resp_1")
    assert (reply.status, reply.json()["error"]["code"]) == (400, "mutually_exclusive_parameters")


def test_the_store_is_bounded():
    store = ConversationStore(conversations_max=3, bytes_max=100_000)
    for number in range(5):
        store.keep(KeptConversation(f"conv_{number}", 0, {}))
    assert len(store) == 3 and store.find("conv_0") is None
    store.add("conv_4", [{"id": "msg_1", "content": "x" * 50_000}])
    store.add("conv_3", [{"id": "msg_2", "content": "x" * 60_000}])
    assert store.find("conv_4") is None and store.find_item("msg_1") is None
    assert store.find_item("msg_2") is not None
    assert store._bytes <= 100_000
    for name in ("conv_2", "conv_3"):
        store.remove(name)
    assert (store._bytes, len(store), store._owners) == (0, 0, {})
