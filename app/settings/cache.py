"""The response cache's part of the configuration file."""

from __future__ import annotations

from typing import Annotated, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from app.core.identity import CacheMode, CacheScope
from app.settings.section import Bytes, Number, Section

TTL_S_MAX = 30 * 86_400
ENTRY_BYTES_MAX = 4 * 2**20
MODES: tuple[CacheMode, ...] = get_args(CacheMode)


def _mode(value: object) -> object:
    """YAML reads a bare ``off`` as False."""
    if value is True:
        raise ValueError(f"expected one of {', '.join(MODES)}")
    return "off" if value is False else value


Mode = Annotated[CacheMode, BeforeValidator(_mode)]
Lifetime = Annotated[float, Number, Field(gt=0, le=TTL_S_MAX)]


class CacheSettings(Section):
    """Whose answers are kept for whom, and for how long. A key's own mode goes over ``mode``, a model's too."""

    mode: Mode = "deterministic"
    scope: CacheScope = "team"
    ttl_s: Lifetime = 3600
    memory_bytes_max: Bytes = 256 * 2**20
    entry_bytes_max: Annotated[Bytes, Field(le=ENTRY_BYTES_MAX)] = 2**20
    count_tokens: bool = False
    idempotency_ttl_s: Lifetime = 86_400

    @model_validator(mode="after")
    def _an_entry_fits(self) -> Self:
        if self.entry_bytes_max > self.memory_bytes_max:
            raise ValueError(
                f"expected entry_bytes_max ({self.entry_bytes_max}) not to be above"
                f" memory_bytes_max ({self.memory_bytes_max})"
            )
        return self


class ModelCache(Section):
    """What a model has otherwise than ``cache:``; None: as there."""

    mode: Mode | None = None
    scope: CacheScope | None = None
    ttl_s: Lifetime | None = None


def _of_a_mode(value: object) -> object:
    """``cache: off`` is short for ``cache: {mode: off}``."""
    return {"mode": value} if isinstance(value, str | bool) else value


OptionalModelCache = Annotated[ModelCache | None, BeforeValidator(_of_a_mode)]
