"""Forms: the fields that are read are the ones that every server reads."""

from __future__ import annotations

import pytest

from app.core.errors import AmbiguousJSON, InvalidRequest
from app.core.form import Form, parse_form

KIND = b"multipart/form-data; boundary=b"


def part(head: str, value: bytes = b"x") -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + value + b"\r\n"


def form(*parts: bytes) -> Form:
    return parse_form(b"".join(parts) + b"--b--\r\n", KIND)


def test_a_field_is_found_wherever_it_stands_and_with_its_place():
    read = form(part('name="file"; filename="a; b.wav"', b"RIFF\r\n--bee"[:6]), part('name="model"', b"whisper-1"))
    field = read.find("model")
    assert field is not None
    assert (read.text("model"), read.body[field.start : field.end]) == ("whisper-1", b"whisper-1")
    assert read.find("prompt") is None


@pytest.mark.parametrize("second", ["model", "model[]", "model[0]"])
def test_a_field_that_is_read_must_not_occur_twice_however_a_list_of_it_is_written(second):
    """Servers written in PHP and Ruby read ``model[]`` as a list in the place of ``model``."""
    read = form(part('name="model"', b"small"), part(f'name="{second}"', b"large"))
    with pytest.raises(AmbiguousJSON):
        read.find("model")
    assert form(part('name="model[]"', b"large")).text("model") == "large"


def test_a_file_is_no_field():
    with pytest.raises(InvalidRequest):
        form(part('name="model"; filename="m"')).find("model")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\nx\r\n--b--\r\n", KIND),
        (b"\r\n" + part('name="model"') + b"--b--\r\n", KIND),
        (part('name="model"') + b"--b--\r\nmore", KIND),
        (part('name="model"') + b"--b\r\n", KIND),
        (part('name="model"').replace(b"--b\r\n", b"--b \r\n") + b"--b--\r\n", KIND),
        (part('name="model"') + b"--b--\r\n", b"multipart/form-data"),
        (part('name="model"') + b"--b--\r\n", KIND + b"; boundary=c"),
        (part('name="model"\r\nContent-Transfer-Encoding: base64') + b"--b--\r\n", KIND),
        (part('name="model"\r\nContent-Disposition: form-data; name="other"') + b"--b--\r\n", KIND),
    ],
)
def test_what_two_readers_could_take_apart_differently_is_refused(body, kind):
    with pytest.raises(InvalidRequest):
        parse_form(body, kind)
