"""The accounting core under a seeded scheduler: every order of loss, delay, repetition and death.

``python -m tests.simulation --seeds 10000`` runs many, ``--seed N --trace`` one again.
"""
