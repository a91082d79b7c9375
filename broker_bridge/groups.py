"""Groups of exceptions, as task groups raise them."""

from __future__ import annotations

from typing import TypeVar

Failure = TypeVar("Failure", bound=BaseException)


def first_of(group: BaseExceptionGroup[Failure]) -> Failure:
    """The first exception of a group of groups."""
    found = group.exceptions[0]
    return first_of(found) if isinstance(found, BaseExceptionGroup) else found
