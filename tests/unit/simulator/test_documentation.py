from __future__ import annotations

from pathlib import Path

from app.simulator.log import Served
from app.simulator.steering import Steering

PAGE = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text()


def test_every_directive_is_documented():
    keys = set(Steering.__struct_fields__) - {"headers"}
    assert [key for key in sorted(keys) if f"`{key}=" not in PAGE] == []
    assert "`header_NAME=" in PAGE


def test_every_member_of_the_log_is_documented():
    assert [member for member in Served.__struct_fields__ if f"`{member}`" not in PAGE] == []
