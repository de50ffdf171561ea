"""Every fault of the table changes its target and nothing else."""

from functools import cache

import pytest
from simulated import Published, small_city

from chargewatch.errors import InputFileError
from chargewatch.signals.registry import RULES
from chargewatch.simulators.faults import FAULTS
from chargewatch.simulators.scenario import load_scenario

ONLY_REGISTRY = {"unregistered", "expired", "unverified"}
ONLY_ARRIVAL = {"constant_delay"}


def shortened(kind):
    """Return parameters that let a fault happen within twelve days."""
    times = {"begin_days": 6.0, "length_days": 2.0}
    changed = {name: value for name, value in times.items() if name in kind.parameters}
    if "share" in kind.parameters:
        changed["share"] = 0.5
    return changed


@cache
def faulty_city(name):
    city = small_city((name, shortened(FAULTS[name])))
    return city, Published(city)


@pytest.fixture(scope="module")
def quiet():
    return Published(small_city())


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_changes_its_target_and_nothing_else(quiet, name):
    kind = FAULTS[name]
    city, faulty = faulty_city(name)
    (fault,) = city.faults.all
    stations, connectors = city.layout.stations.name, city.layout.connectors.name
    target = (connectors if kind.on == "connector" else stations)[fault.target]

    for connector in connectors:
        station = connector.split("-")[0]
        same = faulty.of_connector(connector) == quiet.of_connector(connector)
        if target not in (connector, station):
            assert same, connector
        elif target == connector and name not in ONLY_REGISTRY:
            assert not same
    for station in stations:
        same = faulty.of_station(station) == quiet.of_station(station)
        if not target.startswith(station):
            assert same, station
        elif name not in ONLY_REGISTRY | ONLY_ARRIVAL:
            assert not same
    for meter, items in quiet.reference.items():
        if kind.on == "connector" or not meter.startswith(target):
            assert faulty.reference[meter] == items

    differing = {
        row["connector"]
        for row, before in zip(faulty.truth["connectors"], quiet.truth["connectors"], strict=True)
        if row["relative_error"] != before["relative_error"]
    }
    assert differing == ({target} if kind.changes_error else set())


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_truth_asks_for_the_signals_of_the_fault_on_its_target_only(name):
    kind = FAULTS[name]
    truth = faulty_city(name)[1].truth
    (fault,) = truth["faults"]
    assert fault["fault"] == name
    rows = truth["connectors"] if kind.on == "connector" else truth["stations"]
    key = "connector" if kind.on == "connector" else "station_id"
    asked = {row[key]: set(row["signals"]) for row in rows if row["signals"]}
    assert asked == ({fault["target"]: set(kind.signals)} if kind.signals else {})
    assert set(kind.signals) | set(kind.allowed) <= set(RULES)


@pytest.mark.parametrize("name", sorted(ONLY_REGISTRY))
def test_faults_of_the_registry_change_only_their_rows(quiet, name):
    city, _ = faulty_city(name)
    target = city.layout.connectors.name[city.faults.all[0].target]
    registry = city.registry()
    for kind in ("connectors", "verifications"):
        before = {row["connector"]: row for row in quiet.registry[kind]}
        after = {row["connector"]: row for row in registry[kind]}
        changed = {k for k in before if before[k] != after.get(k)}
        assert changed <= {target}
    assert registry != quiet.registry


def test_an_unknown_fault_or_parameter_is_named():
    with pytest.raises(InputFileError, match="no fault 'gremlin'"):
        small_city(("gremlin", {}))
    with pytest.raises(InputFileError, match="no parameter size"):
        small_city(("gain", {"size": 3}))


def test_a_share_beside_a_count_is_how_often_the_fault_strikes():
    faults = [{"fault": "withheld", "count": 2, "share": 0.15}, {"fault": "late", "share": 0.5}]
    withheld, late = load_scenario("quiet-city", faults=faults).faults
    assert (withheld.count, withheld.share, withheld.parameters) == (2, 0.0, {"share": 0.15})
    # Alone it is how many of the city have the fault.
    assert (late.count, late.share, late.parameters) == (0, 0.5, {})


def test_no_two_faults_share_a_target():
    city = small_city(*[(name, {}) for name in FAULTS], stations=24)
    targets = [(fault.kind.on, fault.target) for fault in city.faults.all]
    assert len(targets) == len(set(targets)) == len(FAULTS)
