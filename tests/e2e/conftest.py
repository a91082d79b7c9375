"""What end-to-end tests share: a broker of each test's own, and base models made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.models import make_base_model
from tests.servers import Server, mosquitto


@pytest.fixture
def broker() -> Iterator[Server]:
    """A Mosquitto of the test's own: retained messages of another test's federation would be believed."""
    with mosquitto() as server:
        yield server


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    return make_base_model(tmp_path_factory.mktemp("model"), "16,8")


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose vector is several times larger than 64 KiB."""
    return make_base_model(tmp_path_factory.mktemp("wide-model"), "256,256")
