"""The command line: ``headgate``."""

from app.cli.commands import main

__all__ = ["main"]
