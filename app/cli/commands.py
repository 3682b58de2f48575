"""Every command by its name."""

from __future__ import annotations

from typing import Annotated

import typer

from app import __version__
from app.cli import cache, limits, people, reports, serving, state, tokens, upkeep, usage, worker

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
app.add_typer(tokens.tokens, name="tokens")
app.add_typer(limits.limits, name="limits")
app.add_typer(cache.cache, name="cache")
app.command("serve")(serving.serve)
app.command("simulate")(serving.simulate)
app.command("serve-worker", hidden=True)(worker.serve_worker)
app.command("serve-simulator", hidden=True)(worker.serve_simulator)
app.command("usage")(usage.show_usage)
app.command("check")(reports.check)
app.command("explain")(upkeep.explain_request)
app.command("backup")(upkeep.back_up_ledger)
app.command("restore")(upkeep.restore_ledger)
app.command("prune")(upkeep.prune_ledger)
app.command("reprice")(upkeep.reprice_ledger)
app.add_typer(upkeep.processes, name="processes")
app.add_typer(state.state, name="state")


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
