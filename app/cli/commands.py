"""Every command by its name."""

from __future__ import annotations

from typing import Annotated

import typer

from app import __version__
from app.cli import people, reports, serving

app = typer.Typer(
    name="headgate",
    help="A self-hosted gateway between OpenAI SDKs and model providers.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with locals could print a key.
    pretty_exceptions_enable=False,
)
app.add_typer(people.teams, name="teams")
app.add_typer(people.keys, name="keys")
app.command("serve")(serving.serve)
app.command("simulate")(serving.simulate)
app.command("usage")(reports.show_usage)
app.command("check")(reports.check)


def _version(asked: bool) -> None:  # noqa: FBT001 - typer's callback
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version


def main() -> None:
    """The console script."""
    app()
