"""Ten thousand worlds: whatever is lost, late, repeated or dies, the bill is right and the limits hold.

A seed that fails is printed with its story; ``python -m tests.simulation --seed N --trace`` tells it again,
step by step.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.run import Verdict, run_seed

SEEDS = 10_000
MUTANT_SEEDS_MAX = 4000


def story_of(verdict: Verdict) -> str:
    lines = [f"python -m tests.simulation --seed {verdict.seed} --trace", *verdict.story, *verdict.broken]
    return "\n    ".join(lines)


def test_ten_thousand_seeds_keep_every_oracle():
    # Processes are started anew: what pytest has imported and its threads stay out of them.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        verdicts = list(pool.map(run_seed, range(SEEDS), chunksize=100))
    broken = [verdict for verdict in verdicts if verdict.broken]
    assert not broken, "\n".join(story_of(verdict) for verdict in broken[:5])
    # A harness that lets nothing through would find nothing either.
    assert sum(verdict.sent for verdict in verdicts) > 5 * SEEDS
    assert sum(bool(verdict.story) for verdict in verdicts) > SEEDS / 2


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_found_by_the_oracle_named_for_it(mutant: Mutant):
    """The harness can fail: it is no proof of anything else."""
    with mutant.applied():
        for seed in range(MUTANT_SEEDS_MAX):
            found = {line.partition(":")[0] for line in run_seed(seed).broken}
            if found & set(mutant.oracles):
                return
    pytest.fail(f"{MUTANT_SEEDS_MAX} seeds did not find it by oracle {' or '.join(mutant.oracles)}")


def test_a_seed_tells_the_same_story_twice():
    assert run_seed(4711) == run_seed(4711)
