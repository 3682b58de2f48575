"""The steps by which a database got its schema; run by ``app.store.migrate``."""
