from __future__ import annotations

from app.cli.output import Format, show_rows


def test_no_cell_of_a_csv_is_a_formula(capsys):
    row = {"name": "a;=1+1", "models": ("=x", "b"), "cost_usd": "-0.5", "other": "=2"}
    show_rows([row], list(row), Format.csv)
    assert capsys.readouterr().out.splitlines()[1] == "a;'=1+1,\"'=x,b\",-0.5,'=2"
