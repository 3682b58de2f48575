"""``python -m tests.simulation --seeds N [--start S] [--jobs J]``, or ``--seed N --trace``."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.run import Verdict, run_seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    given = parser.parse_args()
    if given.seed is not None:
        verdicts = [run_seed(given.seed, trace=given.trace)]
    else:
        began_s = time.monotonic()
        with ProcessPoolExecutor(given.jobs) as pool:
            verdicts = list(pool.map(run_seed, range(given.start, given.start + given.seeds), chunksize=50))
        print(
            f"{len(verdicts)} seeds in {time.monotonic() - began_s:.1f} s, {sum(v.sent for v in verdicts)} calls sent"
        )
    broken = [verdict for verdict in verdicts if verdict.broken]
    for verdict in broken[:10]:
        tell(verdict)
    print(f"{len(broken)} of {len(verdicts)} broken")
    return 1 if broken else 0


def tell(verdict: Verdict) -> None:
    print(f"seed {verdict.seed}:")
    for line in verdict.story:
        print(f"    {line}")
    for line in verdict.broken:
        print(f"  ! {line}")


if __name__ == "__main__":
    sys.exit(main())
