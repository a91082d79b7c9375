"""What interoperability tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.models import make_base_model


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    return make_base_model(tmp_path_factory.mktemp("model"), "16,8")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--write-page`: the table of docs/brokers.md becomes what this run measured."""
    parser.addoption("--write-page", action="store_true", help="write what was measured into docs/brokers.md")
