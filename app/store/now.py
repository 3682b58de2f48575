"""The database's clock, in milliseconds: what several hosts agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from app.store.tables import INT

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


class NowMs(FunctionElement[int]):
    """Milliseconds since 1970 UTC, as the database sees it while the statement runs."""

    type = INT
    inherit_cache = True


@compiles(NowMs, "sqlite")
def _on_sqlite(_element: NowMs, _compiler: SQLCompiler, **_options: Any) -> str:
    # Days since noon of 4714 BC, which a double still tells to a twentieth of a millisecond.
    return "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(NowMs, "postgresql")
def _on_postgres(_element: NowMs, _compiler: SQLCompiler, **_options: Any) -> str:
    # Not now(), which is when the transaction began: it may have waited for a lock since.
    return "CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT)"
