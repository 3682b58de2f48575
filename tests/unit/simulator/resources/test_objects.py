from __future__ import annotations

import asyncio

import openai
import pytest

from app.core.clock import SystemClock
from app.simulator.resources.table import Tables


async def test_vector_stores_hold_files_and_find_words(client):
    sea = await client.files.create(file=("sea.txt", b"The sea is wide and blue"), purpose="assistants")
    land = await client.files.create(file=("land.txt", b"The land is green"), purpose="assistants")
    store = await client.vector_stores.create(name="Things", file_ids=[sea.id], metadata={"a": "b"})
    assert (store.object, store.status, store.file_counts.total, store.usage_bytes) == (
        "vector_store",
        "completed",
        1,
        24,
    )
    added = await client.vector_stores.files.create(store.id, file_id=land.id, attributes={"kind": "land"})
    assert (added.id, added.status, added.vector_store_id) == (land.id, "completed", store.id)
    assert {file.id async for file in client.vector_stores.files.list(store.id)} == {sea.id, land.id}
    found = await client.vector_stores.search(store.id, query="green land")
    assert [result.file_id for result in found.data] == [land.id, sea.id]
    assert found.data[0].content[0].text == "The land is green"
    content = await client.vector_stores.files.content(sea.id, vector_store_id=store.id)
    assert content.data[0].text == "The sea is wide and blue"
    await client.vector_stores.files.delete(sea.id, vector_store_id=store.id)
    assert (await client.vector_stores.retrieve(store.id)).file_counts.total == 1
    batch = await client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[sea.id, land.id])
    assert (batch.status, batch.file_counts.completed) == ("completed", 2)
    listed = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)
    assert len([file async for file in listed]) == 2
    assert (await client.vector_stores.update(store.id, name="Else")).name == "Else"
    assert store.id in [one.id async for one in client.vector_stores.list()]
    assert (await client.vector_stores.delete(store.id)).deleted
    for call in (
        client.vector_stores.retrieve(store.id),
        client.vector_stores.files.create(store.id, file_id=sea.id),
        client.vector_stores.search(store.id, query="x"),
    ):
        with pytest.raises(openai.NotFoundError):
            await call


async def test_containers_hold_files(client):
    container = await client.containers.create(name="box")
    assert (container.object, container.status, container.id[:5]) == ("container", "running", "cntr_")
    made = await client.containers.files.create(container.id, file=("a.csv", b"1,2"))
    assert (made.bytes, made.path, made.container_id) == (3, "/mnt/data/a.csv", container.id)
    uploaded = await client.files.create(file=("b.csv", b"3,4,5"), purpose="user_data")
    copied = await client.containers.files.create(container.id, file_id=uploaded.id)
    assert [file.id async for file in client.containers.files.list(container.id, order="asc")] == [made.id, copied.id]
    content = await client.containers.files.content.retrieve(copied.id, container_id=container.id)
    assert content.read() == b"3,4,5"
    assert made.id not in [file.id async for file in client.files.list()]
    await client.containers.files.delete(made.id, container_id=container.id)
    with pytest.raises(openai.NotFoundError):
        await client.containers.files.retrieve(made.id, container_id=container.id)
    await client.containers.delete(container.id)
    with pytest.raises(openai.NotFoundError):
        await client.containers.retrieve(container.id)


async def test_a_fine_tuning_job_runs_and_succeeds_or_is_cancelled(client):
    made = await client.fine_tuning.jobs.create(model="sim-mini", training_file="file-1")
    assert (made.status, made.object, made.id[:6]) == ("running", "fine_tuning.job", "ftjob-")
    other = await client.fine_tuning.jobs.create(
        model="sim-mini", training_file="file-1", metadata={"sim": "queue_ms=60000"}
    )
    assert (await client.fine_tuning.jobs.cancel(other.id)).status == "cancelled"
    await asyncio.sleep(0.15)
    done = await client.fine_tuning.jobs.retrieve(made.id)
    assert done.status == "succeeded" and done.fine_tuned_model and done.finished_at >= done.created_at
    assert (await client.fine_tuning.jobs.cancel(made.id)).status == "succeeded"
    assert (await client.fine_tuning.jobs.retrieve(other.id)).status == "cancelled"
    assert (await client.fine_tuning.jobs.list_events(made.id)).data == []
    with pytest.raises(openai.BadRequestError):
        await client.fine_tuning.jobs.create(model="sim-mini", training_file=None)


async def test_evals_have_runs(client):
    made = await client.evals.create(
        name="first",
        data_source_config={"type": "custom", "item_schema": {}},
        testing_criteria=[{"type": "string_check", "name": "x", "input": "a", "operation": "eq", "reference": "a"}],
    )
    assert (await client.evals.retrieve(made.id)).name == "first"
    run = await client.evals.runs.create(
        made.id, data_source={"type": "jsonl", "source": {}}, metadata={"sim": "queue_ms=60000"}
    )
    assert (run.eval_id, run.status) == (made.id, "queued")
    assert [one.id async for one in client.evals.runs.list(made.id)] == [run.id]
    assert (await client.evals.runs.output_items.list(run.id, eval_id=made.id)).data == []
    assert (await client.evals.runs.cancel(run.id, eval_id=made.id)).status == "canceled"
    with pytest.raises(openai.NotFoundError):
        await client.evals.runs.create("eval_unknown", data_source={"type": "jsonl", "source": {}})
    with pytest.raises(openai.NotFoundError):
        await client.evals.runs.list("eval_unknown")


async def test_skills_are_made_of_files(client):
    made = await client.skills.create(files=[("skill/SKILL.md", b"# Skill")])
    assert (await client.skills.retrieve(made.id)).id == made.id
    assert (await client.skills.delete(made.id)).deleted


def test_tables_are_bounded():
    tables = Tables(SystemClock(), objects_max=3, bytes_max=5000)
    for number in range(5):
        tables.keep(("a", str(number)), {"id": str(number)})
    assert [shown["id"] for shown in tables.below(("a",))] == ["2", "3", "4"]
    tables.keep(("a", "large"), {"id": "x" * 4000})
    assert len(tables.below(("a",))) < 3
    tables.remove(("a", "large"))
    assert "bytes=5" in repr(tables) or "bytes=0" in repr(tables) or "bytes=1" in repr(tables)
