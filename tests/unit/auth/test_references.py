"""What is taken for a reference to a stored object, and what for the client's own words."""

from __future__ import annotations

import inspect
import re
import time
from pathlib import Path

import msgspec
import openai
import pytest

from app.auth.references import (
    NOT_OBJECTS,
    find_references,
    is_reference,
    objects_of_answer,
    references_of_fields,
    references_of_query,
    refuse_account_sources,
)
from app.core.codec import parse_object_fast
from app.core.errors import AmbiguousJSON, InvalidRequest
from app.core.form import parse_form
from app.edge.table import FAMILIES

OURS = (
    "admin",
    "beta/agent",
    "live",
    "realtime",
    "beta/realtime",
    "webhooks",
    "beta/chatkit",
    "beta/persisted",
    "safety",
)
"""Parts of the API that the endpoint table leaves out."""
NO_IDS = {
    "model": "the catalog's",
    "name": "a display name",
    "user": "the client's end user",
    "safety_identifier": "the client's end user",
    "logit_bias": "tokens",
    "input": "text",
    "known_speaker_names": "names",
}
CURSORS = {"after", "before"}
PYTHON = {"type": "code_interpreter", "container": "cntr_1"}


def found(body: dict, dialect: str = "responses") -> list[tuple[str, str]]:
    document = parse_object_fast(msgspec.json.encode(body))
    assert document is not None
    return [(each.param, each.object_id) for each in find_references(dialect, document)]


@pytest.mark.parametrize(
    "body",
    [
        {"input": "previous_response_id: resp_1"},
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"file_id":"file-1"}'}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "file-1"}]},
        {"input": [{"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "output_text"}]}]},
        {"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "summary": []}]},
        {"input": "a", "metadata": {"file_id": "x", "id": "y"}, "text": {"format": {"schema": {"file_id": "z"}}}},
        {"tools": [{"type": "function", "name": "f", "parameters": {"properties": {"file_id": {"type": "string"}}}}]},
        {"tools": [{"type": "mcp", "connector_id": "connector_dropbox", "headers": {"x_id": "1"}}]},
        {"tools": [{"type": "function", "name": "f", "output_schema": {"examples": [{"file_id": "a"}]}}]},
        {"input": [{"type": "mcp_list_tools", "tools": [{"name": "f", "annotations": {"file_id": "a"}}]}]},
        {"input": [{"type": "local_shell_call", "call_id": "c", "action": {"env": {"job_id": "1"}}}]},
        {"input": "a", "previous_response_id": None, "conversation": None, "file_ids": []},
    ],
)
def test_a_clients_own_words_are_none(body):
    assert found(body) == []


@pytest.mark.parametrize(
    ("dialect", "body", "expected"),
    [
        ("responses", {"previous_response_id": "resp_1"}, [("previous_response_id", "resp_1")]),
        ("responses", {"conversation": {"id": "conv_1"}}, [("conversation", "conv_1")]),
        ("responses", {"prompt": {"id": "pmpt_1", "variables": {"a_id": "b"}}}, [("prompt", "pmpt_1")]),
        ("responses", {"a": [[{"new_ids": ["x", "y"]}]]}, [("new_ids", "x"), ("new_ids", "y")]),
        ("chat", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, [("audio", "audio_1")]),
        ("chat", {"audio": {"voice": {"id": "voice_1"}}}, [("voice", "voice_1")]),
        (
            "responses",
            {"prompt": {"id": "pmpt_1", "variables": {"d": {"type": "input_file", "file_id": "file-1"}}}},
            [("prompt", "pmpt_1"), ("file_id", "file-1")],
        ),
        ("responses", {"input": {"type": "item_reference", "id": "msg_1"}}, [("input", "msg_1")]),
        ("responses", {"response": {"input": [{"type": "item_reference", "id": "m"}]}}, [("input", "m")]),
        ("responses", {"input": [[{"type": "item_reference", "id": "msg_1"}]]}, [("input", "msg_1")]),
        ("responses", {"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": ""}]}, [("input", "rs_1")]),
        ("other", {"file_id": "a", "attributes": {"customer_id": "mine"}}, [("file_id", "a")]),
        ("responses", {"input": [{"type": "additional_tools", "tools": [PYTHON]}]}, [("container", "cntr_1")]),
        ("responses", {"items": [{"type": "tool_search_output", "tools": [PYTHON]}]}, [("container", "cntr_1")]),
        ("other", {"data_source": {"sampling_params": {"tools": [PYTHON]}}}, [("container", "cntr_1")]),
        ("other", {"anything": {"id": "x"}}, [("id", "x")]),
        ("other", {"training_file": "file-1"}, [("training_file", "file-1")]),
        ("other", {"data_source": {"source": {"content": [{"item": {"id": "mine"}}]}}}, []),
    ],
)
def test_what_is_one(dialect, body, expected):
    assert found(body, dialect) == expected


def test_an_escaped_name_is_found():
    document = msgspec.json.decode(rb'{"input":[{"content":[{"\u0066ile_id":"file_1"}]}]}')
    assert found(document) == [("file_id", "file_1")]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "small", "Model": "large"},
        {"model": "m", "STREAM": True},
        {"model": "m", "Previous_Response_ID": "resp_1"},
        {"model": "m", "previou\u017f_re\u017fpon\u017fe_id": "resp_1"},
        {"model": "m", "Conver\u017fation": "conv_1"},
        {"model": "m", "input": [{"type": "item_reference", "ID": "msg_1"}]},
        {"model": "m", "input": [{"Type": "item_reference", "id": "msg_1"}]},
    ],
)
def test_a_name_that_some_servers_would_take_for_another_is_refused(body):
    """A server written in Go reads each of them in any case: Ollama would answer with the large model."""
    for dialect in ("responses",) if "input" in body else ("responses", "chat", "other"):
        with pytest.raises(AmbiguousJSON):
            found(body, dialect)


def test_a_clients_own_names_may_have_any_letters():
    assert (
        found({"metadata": {"Model": "x", "ID": "y"}, "Anything": 1, "input": [{"type": "message", "Role": 1}]}) == []
    )


def test_an_id_must_be_text():
    with pytest.raises(InvalidRequest):
        found({"conversation": {"id": 5}})
    with pytest.raises(InvalidRequest):
        found({"input": [{"type": "item_reference", "id": ["x"]}]})


def test_fields_of_forms_and_queries():
    told = references_of_fields([("file_id", "a"), ("file_ids[]", "b"), ("include[]", "c"), ("metadata[file_id]", "d")])
    assert [each.object_id for each in told] == ["a", "b"]
    hidden = references_of_fields([("video[id]", "v"), ("images[0][file_id]", "i"), ("attributes[file_id]", "x")])
    assert [each.object_id for each in hidden] == ["v", "i"]
    assert [each.object_id for each in references_of_query(b"response%5Fid=r&include%5B%5D=x&after=y")] == ["r"]


def test_a_query_is_read_as_old_servers_read_it_too():
    assert [each.object_id for each in references_of_query(b"a=b;file_id=f")] == ["f"]
    assert {each.object_id for each in references_of_query(b"file_id=f;g")} == {"f;g", "f"}


@pytest.mark.parametrize("name", ["Model", "File_ID", "images[0][FILE_ID]", "STREAM", "file_Ids[]"])
def test_a_field_that_some_servers_would_take_for_another_is_refused(name):
    """A server written in .NET reads fields in any case."""
    with pytest.raises(AmbiguousJSON):
        references_of_fields([(name, "x")])
    if "_" in name:
        with pytest.raises(AmbiguousJSON):
            references_of_query(f"{name}=x".encode())


def test_fields_of_a_clients_own_may_have_any_letters():
    assert references_of_fields([("metadata[Model]", "x"), ("Prompt_Style", "y"), ("language", "de")]) == []


def test_what_an_answer_names():
    answer = {
        "id": "batch_1",
        "output_file_id": "file-1",
        "file": {"id": "file-2"},
        "metadata": {"file_id": "x"},
        "attributes": {"file": "y", "file_id": "z"},
        "output": [{"content": [{"annotations": [{"container_id": "cntr_1", "file_id": "cfile_1"}]}]}],
        "previous_response_id": None,
        "fine_tuned_model": "ft:a",
    }
    cited = {("named", "cntr_1"), ("named", "cfile_1")}
    assert set(objects_of_answer(answer)) == {("named", "file-1"), *cited}
    assert next(objects_of_answer(answer, "batches")) == ("file", "file-1")
    assert set(objects_of_answer(answer, "uploads")) == {("named", "file-1"), ("file", "file-2"), *cited}
    assert set(objects_of_answer(answer, "fine_tuning")) == {("named", "file-1"), ("model", "ft:a"), *cited}


@pytest.mark.parametrize(
    "answer",
    [
        {"output": [{"type": "mcp_list_tools", "tools": [{"name": "f", "annotations": {"x_id": "msg_1"}}]}]},
        {"output": [{"type": "mcp_list_tools", "tools": [{"name": "f", "_meta": {"x_id": "msg_1"}}]}]},
        {"output": [{"type": "mcp_call", "error": {"type": "mcp_tool_execution_error", "content": [{"x_id": "a"}]}}]},
        {"output": [{"type": "local_shell_call", "action": {"env": {"x_id": "msg_1"}}}]},
        {"data": [{"type": "mcp_approval_response", "approval_request_id": "msg_1"}]},
        {"prompt": {"variables": {"x_id": "msg_1"}}},
        {"tools": [{"type": "function", "output_schema": {"properties": {"x_id": {"id": "msg_1"}}}}]},
        {"data": [{"datasource_item": {"x_id": "msg_1"}}]},
        {"method": {"grader": {"fine_tuned_model": "ft:theirs"}}},
    ],
)
def test_what_a_client_can_have_put_into_an_answer_is_not_named_by_it(answer):
    """Nor a server of its choice, as that of a tool: whoever brings an id so would come to own what is nobody's."""
    for family in ("responses", "evals", "fine_tuning"):
        assert list(objects_of_answer(answer, family)) == []


def test_an_id_within_a_reference_is_one():
    """An answer that repeats it makes it the team's."""
    assert found({"x_id": {"id": "msg_1"}, "y_ids": [{"id": "msg_2"}]}) == [("x_id", "msg_1"), ("y_ids", "msg_2")]


def test_every_parameter_of_the_sdk_that_holds_an_id_is_looked_at():
    """A parameter that is new to the SDK, holds an id and is not named as one fails here."""
    types = Path(inspect.getfile(openai)).parent / "types"
    unknown = {}
    for path in types.rglob("*param*.py"):
        place = str(path.relative_to(types))
        if place.startswith(OURS):
            continue
        for name, kind, doc in re.findall(
            r'^    (\w+)\s*:\s*([^\n]*)\n(?:\s*"""(.*?)""")?', path.read_text(), re.MULTILINE | re.DOTALL
        ):
            holds_id = re.search(r"\b(ID|IDs|identifier)\b", doc) and re.search("str|Union|List|Sequence", kind)
            if holds_id and not (is_reference(name) or name in NOT_OBJECTS | NO_IDS.keys() | CURSORS | {"id"}):
                unknown[name] = place
    assert not unknown


def test_every_operation_of_the_sdk_is_in_the_table_or_left_out_by_name():
    left_out = re.compile(
        r"/(organization|projects|agents|vaults|webhook|safety|live|chatkit|decisions|content_provenance"
        r"|realtime|audio/voice|fine_tuning/checkpoints)"
    )
    table = {(e.method, re.sub(r"[{<][^}>]*[}>]", "{}", e.path)) for family in FAMILIES for e in family.endpoints}
    resources = Path(inspect.getfile(openai)).parent / "resources"
    call = re.compile(r'self\._(get|post|delete|get_api_list)\(\s*(?:path_template\()?\s*f?"(/[^"?]*)')
    missing = set()
    for path in resources.rglob("*.py"):
        for method, found_path in call.findall(path.read_text()):
            shape = re.sub(r"\{[^}]*\}", "{}", found_path)
            operation = ("GET" if method == "get_api_list" else method.upper(), shape)
            # A page may also be asked for by a POST.
            paged = method == "get_api_list" and ("POST", shape) in table
            if operation not in table and not paged and not left_out.match(shape):
                missing.add(operation)
    assert not missing


@pytest.mark.parametrize("kind", ["stored_completions", "logs", "responses"])
def test_an_eval_reads_no_source_of_all_teams(kind):
    body = {"data_source": {"type": "jsonl", "source": {"type": kind, "created_after": 0}}}
    document = parse_object_fast(msgspec.json.encode(body))
    with pytest.raises(InvalidRequest):
        refuse_account_sources(document)
    refuse_account_sources(parse_object_fast(b'{"data_source":{"source":{"type":"file_id","id":"file-1"}}}'))


@pytest.mark.parametrize(
    "disposition",
    [
        b'form-data; name="file_id"; x-filename="a"',
        b'form-data; name="x"; name="file_id"',
        b'form-data; name="file_id";name="x"',
        b'form-data; name=file_id; name="x"',
        b"form-data; name=\"x\"; name*=utf-8''file_id",
        b'form-data; filename="a"; name="file_id"',
    ],
)
def test_a_part_of_a_form_has_one_name(disposition):
    body = b"--b\r\ncontent-disposition: %b\r\n\r\nv\r\n--b--\r\n" % disposition
    with pytest.raises(InvalidRequest):
        parse_form(body, b"multipart/form-data; boundary=b")


def test_a_reference_that_is_sent_as_a_file_is_one():
    body = b'--b\r\ncontent-disposition: form-data; name="file_id"; filename=""\r\n\r\nfile-1\r\n--b--\r\n'
    form = parse_form(body, b"multipart/form-data; boundary=b")
    assert [each.object_id for each in references_of_fields(form.texts())] == ["file-1"]


def test_many_approvals_take_no_longer_than_their_number():
    """A search through all of them for each would hold the loop for minutes."""
    asked = [{"type": "mcp_approval_request", "id": f"mcpr_{number}", "name": "x"} for number in range(20_000)]
    told = [{"type": "mcp_approval_response", "approval_request_id": "mcpr_19999", "approve": True}] * 20_000
    began = time.process_time()
    assert found({"input": [*asked, *told]}) == []
    assert time.process_time() - began < 5


def test_an_approval_id_must_be_text():
    asked = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "x"}
    answer = {"type": "mcp_approval_response", "approval_request_id": ["mcpr_1"]}
    assert found({"input": [asked, answer]}) == [("approval_request_id", "mcpr_1")]


def test_checkpoints_of_a_fine_tuned_model_are_models():
    answer = {"data": [{"id": "c", "fine_tuned_model_checkpoint": "ft:a:ckpt-step-1"}]}
    assert list(objects_of_answer(answer, "fine_tuning")) == [("model", "ft:a:ckpt-step-1")]
