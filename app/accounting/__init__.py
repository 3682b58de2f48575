"""One process' side of the bill: what it asks of the hot state and of SQL, and in which order."""
