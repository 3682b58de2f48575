from tests.contract.store.databases import database, database_url, kind

__all__ = ["database", "database_url", "kind"]
