"""The common ground of every declared value: frozen, strict, and closed to unknown fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$", min_length=1, max_length=64)]
"""An id that we mint: federation, participant, bridge."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", min_length=1, max_length=64)]
"""A name that a PLC accepts too: features, labels, model inputs and outputs."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TransferId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Boot = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Version = Annotated[int, Field(ge=0, le=2**31)]


class Value(BaseModel):
    """A wire value: strict types, no unknown fields, no NaN or infinity, and never changed after it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FileValue(BaseModel):
    """A value read from a person's YAML: unknown keys refused; numbers may be written as people write them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
