"""A configuration file that changes under a running gateway: by an editor, by a swapped link, or not at all."""

from __future__ import annotations

import os

import pytest

from app.settings import ConfigurationError, ConfigurationFile
from app.settings.file import FILE_BYTES_MAX


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "headgate.yaml"
    path.write_text("models: []\n")
    return ConfigurationFile(path)


def test_a_change_is_told_once(file):
    assert file.read() == b"models: []\n"
    assert not file.changed()
    file.path.write_text("models:  []\n")
    assert file.changed()
    assert not file.changed(), "a file that was refused is not refused every two seconds"
    file.path.write_text("models: []\n")
    assert file.changed()


def test_a_file_that_was_only_touched_has_not_changed(file):
    file.read()
    os.utime(file.path, ns=(1, 1))
    assert not file.changed()


def test_a_change_that_keeps_size_and_time_is_seen_by_its_inode(file):
    file.read()
    status = file.path.stat()
    other = file.path.with_suffix(".new")
    other.write_text("prices: []\n")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(file.path)
    assert file.changed()


def test_a_link_that_is_swapped_is_a_change(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"models: []  # {name}\n")
    link = tmp_path / "headgate.yaml"
    link.symlink_to("one")
    file = ConfigurationFile(link)
    file.read()
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(link)
    assert file.changed()
    assert file.read() == b"models: []  # two\n"


def test_a_file_that_is_away_for_a_moment_has_not_changed(file):
    file.read()
    file.path.rename(file.path.with_suffix(".away"))
    assert not file.changed()
    file.path.with_suffix(".away").rename(file.path)
    assert not file.changed()


def test_a_file_that_cannot_be_read_any_more_is_told_once_and_says_why(file):
    file.read()
    file.path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    assert file.changed()
    with pytest.raises(ConfigurationError, match="larger than"):
        file.read()
    assert not file.changed()


def test_without_a_file_there_is_nothing_to_read(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        ConfigurationFile(tmp_path / "none").read()
