"""What a database can do, and which TimescaleDB must not compress, follow from its versions."""

from __future__ import annotations

import pytest

from chargewatch.storage.capabilities import Capabilities, version_numbers


def timescale(version: str, license_name: str = "timescale") -> Capabilities:
    return Capabilities("17.5", version, license_name)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.18.1", (2, 18, 1)), ("2.19", (2, 19, 0)), ("2.20.0-dev", (2, 20, 0)), ("dev", None)],
)
def test_numbers_of_a_version(version: str, numbers: tuple[int, int, int] | None) -> None:
    assert version_numbers(version) == numbers


@pytest.mark.parametrize("version", ["2.11.0", "2.17.2", "2.18.0", "dev"])
def test_columnstore_that_loses_late_readings_is_refused(version: str) -> None:
    fault = timescale(version).columnstore_fault
    assert f"TimescaleDB {version} silently loses" in fault
    assert "2.18.1" in fault


@pytest.mark.parametrize("version", ["2.18.1", "2.18.2", "2.19.0", "2.100.0", "3.0.0"])
def test_columnstore_of_a_mended_version_is_fine(version: str) -> None:
    assert timescale(version).columnstore_fault == ""


def test_edition_without_a_columnstore_has_no_such_fault() -> None:
    assert timescale("2.17.2", "apache").columnstore_fault == ""
    assert Capabilities("18.0", None, None).columnstore_fault == ""


def test_each_engine_says_what_is_lost_by_it() -> None:
    assert "hypertables" in Capabilities("18.0", None, None).losses
    assert timescale("2.19.0", "apache").losses == "compression and retention policies"
    assert timescale("2.19.0").losses == ""
