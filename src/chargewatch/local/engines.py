"""The demo's database and broker: those of the settings, else embedded ones; what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chargewatch.errors import EngineError
from chargewatch.local.broker import (
    LOSSES,
    EmbeddedBroker,
    Program,
    choose_program,
    rumqttd_available,
)
from chargewatch.local.postgres import EmbeddedPostgres
from chargewatch.settings import Settings

RUMQTTD_BATCH_MS = 20
"""How long ingest collects messages from rumqttd, which hands out 100 at a time, ms."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What the demo took for a database or a broker, and what one does without by it."""

    found: str
    lost: str


@dataclass(frozen=True, kw_only=True)
class Engines:
    """Where the demo's database and broker are."""

    database_url: str
    mqtt_url: str
    simulator_mqtt_url: str
    database_from: str
    broker: Engine
    batch_ms: int
    """How long ingest collects messages before it writes."""


def start_broker(
    settings: Settings, folder: Path, *, operators: Sequence[str], say: Callable[[str], None]
) -> EmbeddedBroker:
    """Return a started broker: a Mosquitto that does not start gives way to rumqttd, if it may.

    Raises: EngineError when none starts, or the one of CHARGEWATCH_BROKER_PROGRAM doesn't.
    """

    def started(program: Program) -> EmbeddedBroker:
        broker = EmbeddedBroker(folder / program, operators=operators, program=program)
        broker.start()
        return broker

    program = choose_program(settings.broker_program)
    try:
        return started(program)
    except EngineError as exc:
        if settings.broker_program != "auto" or program == "rumqttd" or not rumqttd_available():
            raise
        say(f"Mosquitto is installed and does not start, taking rumqttd: {exc}")
        return started("rumqttd")


@contextmanager
def engines(
    settings: Settings, folder: Path, *, operators: Sequence[str], say: Callable[[str], None]
) -> Iterator[Engines]:
    """Yield the engines of the settings; embedded ones, on free ports, where none is set."""
    with ExitStack() as stack:
        database_url, database_from = settings.database_url, "of CHARGEWATCH_DATABASE_URL"
        if not database_url:
            database_url = stack.enter_context(EmbeddedPostgres(folder / "database")).url
            database_from = "from a wheel"
        mqtt_url = simulator_url = settings.mqtt_url
        taken, batch_ms = Engine(found="the broker of CHARGEWATCH_MQTT_URL", lost=""), None
        if not mqtt_url:
            broker = start_broker(settings, folder, operators=operators, say=say)
            stack.callback(broker.stop)
            mqtt_url, simulator_url = broker.url, broker.simulator_url
            taken = Engine(found=broker.found, lost=LOSSES[broker.program])
            # A batch that waits for more than the broker sends unacknowledged waits for nothing.
            if broker.program == "rumqttd":
                batch_ms = min(RUMQTTD_BATCH_MS, settings.batch_ms)
        yield Engines(
            database_url=database_url,
            mqtt_url=mqtt_url,
            simulator_mqtt_url=simulator_url,
            database_from=database_from,
            broker=taken,
            batch_ms=batch_ms or settings.batch_ms,
        )
