"""docs/simulators.md says what the simulators do."""

import re
from pathlib import Path

from chargewatch.simulators.faults import FAULTS
from chargewatch.simulators.scenario import scenario_names

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "simulators.md").read_text(encoding="utf-8")


def codes(cell):
    return set(re.findall(r"`([a-z_]+)`", cell))


def test_every_fault_is_documented_with_its_parameters_and_signals():
    rows = {}
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0].strip("`") in FAULTS:
            rows[cells[0].strip("`")] = cells
    assert set(rows) == set(FAULTS)
    for name, kind in FAULTS.items():
        _, on, meaning, parameters, must, may = rows[name]
        assert (on, meaning) == (kind.on, kind.meaning)
        told = dict(pair.split(" ") for pair in parameters.split(", ")) if parameters != "-" else {}
        assert {k: float(v) for k, v in told.items()} == kind.parameters
        assert codes(must) == set(kind.signals)
        assert codes(may) == set(kind.allowed)


def test_every_scenario_is_documented():
    for name in [*scenario_names(), "real-sessions"]:
        assert f"`{name}`" in TEXT


def test_every_figure_and_link_exists():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (DOCS / target.partition("#")[0]).exists(), target
