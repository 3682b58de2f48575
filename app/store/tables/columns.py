"""What columns are made of, on SQLite and PostgreSQL.

Whole numbers are 64 bits everywhere (money is nano-dollars), JSON is text, truth values are 0 or 1:
what one database returns is what the other returns. On SQLite tables are STRICT, since it would
otherwise turn a sum that overflows into a float. Usage rows carry no foreign keys: a bill must be
writable whatever became of the team. A change here needs a migration (``migrations/versions``).
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, Text, text

INT = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def text_column(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text(), nullable=null)


def int_column(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, INT, nullable=null)


def units_column(name: str) -> Column[int]:
    """A bucket of usage that came later: rows from before have none of it."""
    return Column(name, INT, nullable=False, server_default=text("0"))
