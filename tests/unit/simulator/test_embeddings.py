from __future__ import annotations

import base64
import math
from array import array

import openai
import pytest
from openai.types import CreateEmbeddingResponse

from app.simulator.tokens import count_tokens


async def test_vectors_are_unit_vectors_and_always_the_same(client):
    asked = [await client.embeddings.create(model="sim-embedding", input=["one", "two"]) for _ in range(2)]
    one, two = asked[0].data
    assert asked[0] == asked[1]
    assert one.embedding != two.embedding
    assert [one.index, two.index] == [0, 1]
    assert math.isclose(sum(value * value for value in one.embedding), 1, rel_tol=1e-5)
    assert asked[0].usage.prompt_tokens == asked[0].usage.total_tokens == 2
    other = await client.embeddings.create(model="text-embedding-3-small", input="one", dimensions=256)
    assert other.data[0].embedding != one.embedding


@pytest.mark.parametrize(
    ("model", "dimensions", "expected"),
    [
        ("sim-embedding", None, 256),
        ("text-embedding-3-small", None, 1536),
        ("text-embedding-3-large", None, 3072),
        ("text-embedding-3-large", 64, 64),
    ],
)
async def test_the_dimensions_are_those_asked_for(client, model, dimensions, expected):
    options = {"dimensions": dimensions} if dimensions else {}
    answer = await client.embeddings.create(model=model, input="x", **options)
    assert len(answer.data[0].embedding) == expected


async def test_both_encodings_carry_the_same_vector(caller):
    body = {"model": "sim-embedding", "input": "some text"}
    plain = await caller.post("/v1/embeddings", body)
    packed = await caller.post("/v1/embeddings", body | {"encoding_format": "base64"})
    CreateEmbeddingResponse.model_validate_json(plain.body, strict=True)
    vector = array("f", base64.b64decode(packed.json()["data"][0]["embedding"]))
    assert vector.tolist() == plain.json()["data"][0]["embedding"]


async def test_token_numbers_are_inputs_too(client, caller):
    one = await client.embeddings.create(model="sim-embedding", input=[1, 2, 3])
    two = await client.embeddings.create(model="sim-embedding", input=[[1, 2, 3], [4]])
    assert len(one.data) == 1
    assert one.usage.prompt_tokens == 3
    assert two.usage.prompt_tokens == 4
    assert two.data[0].embedding == one.data[0].embedding


async def test_the_log_says_what_was_used(caller):
    await caller.post("/v1/embeddings", {"model": "sim-embedding", "input": ["several words here", "and there"]})
    served = await caller.served()
    assert (served.endpoint, served.outcome, served.billed) == ("embeddings", "completed", True)
    assert served.usage.input_tokens == count_tokens("several words here") + count_tokens("and there")
    assert served.usage.output_tokens == 0


@pytest.mark.parametrize("text", ["x [[sim: error=503]]", ["a", "x [[sim: error=503]]"]])
async def test_embeddings_are_steered_too(client, text):
    with pytest.raises(openai.InternalServerError):
        await client.embeddings.create(model="sim-embedding", input=text)


@pytest.mark.parametrize("text", ["", [], [""], [[]], [["x"]], [1, "x"], 5, None, [True], [{}]])
async def test_inputs_that_make_no_sense_are_refused(caller, text):
    reply = await caller.post("/v1/embeddings", {"model": "sim-embedding", "input": text})
    assert reply.status == 400
    assert reply.json()["error"]["param"].startswith("input")
