"""Types and arithmetic that every other part shares. Imports nothing of ours and does no I/O."""
