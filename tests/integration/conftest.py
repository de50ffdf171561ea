"""Fixtures that several modules of these tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.ingest_fleet import Ingest, made_ingests
from tests.integration.production_mosquitto import production_mosquitto

USERS = ("platform", "OP1", "OP2")


@pytest.fixture
def make_ingest(tmp_path: Path) -> Iterator[Callable[..., Ingest]]:
    """Return what makes the command `chargewatch ingest` of a broker and a database."""
    with made_ingests(tmp_path) as make:
        yield make


@pytest.fixture
def production_broker() -> Iterator[str]:
    """Return the URL of Mosquitto on the production configuration."""
    with production_mosquitto(USERS) as url:
        yield url
