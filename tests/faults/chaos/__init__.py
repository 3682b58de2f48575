"""Real processes under faults that a seed draws: gateways, Valkey, PostgreSQL and the simulator, killed, stopped,
cut off and emptied while clients ask; then the oracles of the accounting design, from outside.

``python -m tests.faults.chaos --seeds 100`` runs many, ``--seed N`` one again, ``--only NAME`` one fault.
"""
