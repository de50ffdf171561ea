"""docs/simulators.md says what the simulators do, and nothing else."""

from __future__ import annotations

from chargewatch.simulators.faults import FAULTS
from chargewatch.simulators.oddities import ODDITIES
from chargewatch.simulators.scenario import scenario_names
from documents import code, first_codes, rows, section


def test_every_fault_is_documented_with_its_parameters_and_signals():
    table = {code(row[0])[0]: row for row in rows(section("simulators.md", "Faults"))}
    odd = {code(row[0])[0]: [*row, "-", "-"] for row in rows(section("simulators.md", "Oddities"))}
    assert sorted([*table, *odd]) == sorted(FAULTS)
    assert set(odd) == {kind.name for kind in ODDITIES}
    for name, kind in FAULTS.items():
        _, on, meaning, parameters, must, may = (table | odd)[name]
        assert (on, meaning) == (kind.on, kind.meaning)
        told = dict(pair.split(" ") for pair in parameters.split(", ")) if parameters != "-" else {}
        assert {k: float(v) for k, v in told.items()} == kind.parameters
        assert set(code(must)) == set(kind.signals)
        assert set(code(may)) == set(kind.allowed)


def test_every_scenario_is_documented_once():
    documented = first_codes(section("simulators.md", "Scenarios"))
    assert sorted(documented) == sorted([*scenario_names(), "real-sessions"])
