from tests.contract.store.databases import conflicts, database, database_url, kind

__all__ = ["conflicts", "database", "database_url", "kind"]
