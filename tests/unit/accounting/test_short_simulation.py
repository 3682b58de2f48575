"""A few worlds of ``tests.simulation``, in a second: what breaks the protocol as a whole is seen at once."""

from __future__ import annotations

from tests.simulation.run import run_seed

SEEDS = 60


def test_sixty_worlds_keep_every_oracle():
    sent = 0
    for seed in range(SEEDS):
        verdict = run_seed(seed)
        assert not verdict.broken, [f"python -m tests.simulation --seed {seed} --trace", *verdict.broken]
        sent += verdict.sent
    assert sent > 5 * SEEDS
