"""``python -m tests.faults.chaos --seeds N [--start S]``, ``--seed N``, ``--only NAME``, ``--dense`` or ``--midnight``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator

from tests.fakes.postgres import PostgresServer
from tests.faults.chaos.figures import line_of, summary_of
from tests.faults.chaos.mishaps import MISHAPS
from tests.faults.chaos.run import Verdict, run_story
from tests.faults.chaos.story import Story, dense, directed, midnight, story_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only", choices=[*MISHAPS, "each"])
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--dense", action="store_true", help="Valkey restarts every five seconds, for a minute")
    parser.add_argument("--midnight", action="store_true", help="wait for the end of a day, and run over it")
    parser.add_argument("--keep", action="store_true", help="keep the logs, in the folder of temporary files")
    given = parser.parse_args()
    server = PostgresServer()
    verdicts: list[Verdict] = []
    try:
        for story in _stories(given):
            verdict = asyncio.run(run_story(story, server, keep=given.keep))
            verdicts.append(verdict)
            print(line_of(verdict), flush=True)
            for fault in verdict.faults if verdict.broken or given.seed is not None or given.only else ():
                print(f"    {fault}")
            for owed in verdict.slow[:4]:
                print(f"  ~ still owed after a while: {owed}")
            for broken in verdict.broken[:12]:
                print(f"  ! {broken}", flush=True)
    finally:
        server.remove()
    print(json.dumps(summary_of(verdicts), indent=2))
    return 1 if any(verdict.broken for verdict in verdicts) else 0


def _stories(given: argparse.Namespace) -> Iterator[Story]:
    if given.midnight:
        yield from map(midnight, range(given.start, given.start + given.seeds))
    elif given.dense:
        yield dense(given.start)
    elif given.only:
        for name in MISHAPS if given.only == "each" else [given.only]:
            yield directed(name, given.start, given.times)
    elif given.seed is not None:
        yield story_of(given.seed)
    else:
        yield from map(story_of, range(given.start, given.start + given.seeds))


if __name__ == "__main__":
    sys.exit(main())
