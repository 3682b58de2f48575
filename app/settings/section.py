"""What every part of the configuration file is made of: strict sections, and numbers with their bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _no_truth_value(value: object) -> object:
    """YAML's ``yes`` is no number, though Python's True is one."""
    if isinstance(value, bool):
        raise ValueError("expected a number")  # noqa: TRY004 - pydantic tells ValueErrors
    return value


Number = BeforeValidator(_no_truth_value)
Seconds = Annotated[float, Number, Field(gt=0, le=86_400)]
Duration = Annotated[float, Number, Field(ge=0, le=86_400)]
Count = Annotated[int, Number, Field(gt=0, le=10**15)]
Bytes = Annotated[int, Number, Field(ge=1024, le=2**40)]


class Section(BaseModel):
    """A part of the file: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
