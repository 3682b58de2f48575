"""What ``headgate serve`` says when it serves."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from app import __version__
from app.main import FirstRun
from app.settings import Configuration
from app.telemetry.logs import LogWriter


def announce(
    log: LogWriter,
    configuration: Configuration,
    base_url: str,
    *,
    workers: int,
    first_run: FirstRun | None,
    data_dir: Path,
) -> None:
    """To the log, and to a terminal in words."""
    notices = [
        f"the upstream {name!r} is off: it has no key"
        for name, upstream in sorted(configuration.upstreams.items())
        if upstream.is_off
    ]
    log.info("started", version=__version__, url=base_url, pid=os.getpid(), workers=workers)
    for notice in notices:
        log.warning("notice", text=notice)
    if sys.stdout.isatty():
        print(f"headgate {__version__} on {base_url}")
        for notice in notices:
            print(f"  note: {notice}")
        if first_run is not None:
            print(welcome(first_run, data_dir))
        sys.stdout.flush()


def welcome(made: FirstRun, data_dir: Path) -> str:
    """What the first start shows, once; it works as pasted."""
    return f"""
A team, a key and an admin token were made. They are in {data_dir / "first-run.json"}, and not shown again:

  key          {made.key}
  admin token  {made.admin_token}

Try it:

  curl -N {made.base_url}/responses \\
    -H "Authorization: Bearer {made.key}" -H "Content-Type: application/json" \\
    -d '{{"model": "sim-large", "input": "Say hello.", "stream": true}}'

or, from Python (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="{made.base_url}", api_key="{made.key}")
  for event in client.responses.create(model="sim-large", input="Say hello.", stream=True):
      if event.type == "response.output_text.delta":
          print(event.delta, end="", flush=True)

The console is at {made.base_url.removesuffix("/v1")}/: sign in with the admin token.

Then: headgate usage{"" if data_dir == Path("data") else f" --data-dir {data_dir}"}
"""
