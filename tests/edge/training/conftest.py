"""Models of every kind, each exported once for all tests: an export takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

pytest.importorskip("torch")

from edge.training.export import make_model
from tests.edge.training.cases import ALLOWED, CASES
from uns_topics.template import Template
from uns_topics.tensors import Vector

Made = Callable[[str], tuple[Template, Vector]]


@pytest.fixture(scope="session")
def made() -> Made:
    """Template and first vector of a case."""

    @cache
    def make(name: str) -> tuple[Template, Vector]:
        return make_model(*CASES[name], seed=1, factories=ALLOWED)

    return make
