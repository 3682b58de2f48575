"""The keys of kept turns: given, made, or missed."""

from __future__ import annotations

import pytest

from app.main import read_seal, state
from app.settings import ConfigurationError, Environment
from app.state.sealing import new_key
from app.state.turn import Content

CONTENT = Content("team", "turn", b"1", b"{}")


def environment(tmp_path, **more):
    given = {f"HEADGATE_{name.upper()}": str(value) for name, value in more.items() if name.endswith("_file")}
    flags = {name: value for name, value in more.items() if not name.endswith("_file")}
    return Environment.read(given, data_dir=tmp_path, **flags)


def test_on_sqlite_a_key_is_made_once_and_is_nobody_elses_to_read(tmp_path):
    token = read_seal(environment(tmp_path)).close(CONTENT)
    path = tmp_path / "state.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_seal(environment(tmp_path)).open(token, "team", "turn") == CONTENT
    assert [found.name for found in tmp_path.iterdir()] == ["state.key"]


def test_of_two_that_make_a_key_at_once_the_first_counts(tmp_path, monkeypatch):
    environments, made = environment(tmp_path), []

    def slow_key():
        if not made:
            made.append("")
            # Another process makes one meanwhile.
            made.append(read_seal(environments).close(CONTENT))
        return new_key()

    monkeypatch.setattr(state, "new_key", slow_key)
    assert read_seal(environments).open(made[1], "team", "turn") == CONTENT
    assert [found.name for found in tmp_path.iterdir()] == ["state.key"]


def test_what_is_given_counts_and_nothing_is_made(tmp_path):
    key = new_key()
    (tmp_path / "keys").write_text(f"{key}\n")
    token = read_seal(environment(tmp_path, state_keys=key)).close(CONTENT)
    assert read_seal(environment(tmp_path, state_keys_file=tmp_path / "keys")).open(token, "team", "turn") == CONTENT
    assert not (tmp_path / "state.key").exists()


def test_on_postgresql_they_have_to_be_given(tmp_path):
    with pytest.raises(ConfigurationError, match="needs HEADGATE_STATE_KEYS"):
        read_seal(environment(tmp_path, database_url="postgresql://localhost/x"))
    assert list(tmp_path.iterdir()) == []
    read_seal(environment(tmp_path, database_url="postgresql://localhost/x", state_keys=new_key()))


def test_what_are_no_keys_is_told_by_its_place_and_never_repeated(tmp_path):
    with pytest.raises(ConfigurationError, match=r"^HEADGATE_STATE_KEYS: expected keys") as refused:
        read_seal(environment(tmp_path, state_keys="a-secret-that-is-no-key"))
    assert "a-secret" not in str(refused.value)
    (tmp_path / "state.key").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"state\.key: expected keys"):
        read_seal(environment(tmp_path))
