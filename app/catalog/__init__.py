"""Which upstream serves which model, compiled from the configuration."""

from app.catalog.catalog import Catalog, Route

__all__ = ["Catalog", "Route"]
