"""A small city on its way into a database, for tests of risk runs."""

from datetime import UTC, datetime

import orjson

from chargewatch.domain.mpe import rule_set
from chargewatch.ingest.contents.assembly import TimeLimits
from chargewatch.ingest.message import Arrival, read_message
from chargewatch.ingest.writer import BatchWriter
from chargewatch.simulators.city import make_city
from chargewatch.simulators.scenario import FaultSpec, load_scenario, with_faults
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.registry import import_registry
from chargewatch.wire.registry_file import read_registry_file

TO = datetime(2026, 11, 20, tzinfo=UTC)

LIMITS = TimeLimits(600, 3650)

FAULTS = (
    FaultSpec(fault="gain", count=1, parameters={"magnitude_mpe": 3.0}),
    FaultSpec(fault="loss_billing", count=1),
    FaultSpec(fault="reset", count=1, parameters={"begin_days": 2.0}),
    FaultSpec(fault="unregistered", count=1),
    FaultSpec(fault="expired", count=1),
    FaultSpec(fault="missing", count=1, parameters={"share": 0.05}),
)


def make_test_city(*faults, days=8, **options):
    scenario = load_scenario(
        "quiet-city", stations=3, connectors_per_station=5, days=days, **options
    )
    return make_city(with_faults(scenario, *faults), seed=5, to=TO)


def messages_of(city):
    for topic, payload in city.messages():
        yield topic, payload if isinstance(payload, bytes) else orjson.dumps(payload)


async def feed(url, messages):
    """Take messages into the database as ingest does, all of a history at once."""
    async with BatchWriter(url, limits=LIMITS, quarantine_a_day=100) as writer:
        batch = []
        for number, (topic, payload) in enumerate(messages):
            received_us = round(datetime.now(UTC).timestamp() * 1e6) + number
            batch.append(Arrival(topic, payload, None, received_us))
            if len(batch) == 500:
                await writer.write([read_message(arrival) for arrival in batch])
                batch = []
        if batch:
            await writer.write([read_message(arrival) for arrival in batch])


async def register(database, tmp_path, document):
    path = tmp_path / "registry.json"
    path.write_bytes(orjson.dumps(document))
    await import_registry(
        database, read_registry_file(path), actor=Actor(name="test"), rules=rule_set("CN-2022")
    )
