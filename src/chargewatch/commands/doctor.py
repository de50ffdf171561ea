"""`chargewatch doctor`."""

from __future__ import annotations

import platform
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import click
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from chargewatch import __version__
from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.domain.mpe import rule_set
from chargewatch.errors import BrokerError, ChargewatchError
from chargewatch.local.broker import (
    LOSSES,
    choose_program,
    mosquitto_program,
    rumqttd_available,
)
from chargewatch.local.postgres import wheel_programs
from chargewatch.settings import Settings
from chargewatch.storage.capabilities import Capabilities
from chargewatch.storage.database import Database, address_of, open_database
from chargewatch.storage.migrate import current_revision, newest_revision
from chargewatch.storage.pages import messages as message_rows
from chargewatch.storage.wal_archive import WalArchive, wal_archive

State = Literal["ok", "note", "failed"]

MARKS: dict[State, str] = {"ok": "ok    ", "note": "note  ", "failed": "FAILED"}
BROKER_TIMEOUT_S = 10.0
VERSION_TOPIC = "$SYS/broker/version"
VERSION_WAIT_S = 1.0
INSTALL = "pip install 'chargewatch[demo]'"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One thing that was looked at: what was found, what one loses by it, and the next step."""

    name: str
    state: State
    found: str
    lost: str = ""
    next_step: str = ""


@dataclass(frozen=True, kw_only=True)
class BrokerAnswer:
    """What a broker said when we connected: its name and limits, as far as it told them."""

    protocol: str
    version: str
    receive_maximum: int | None
    maximum_packet_bytes: int | None


def _python() -> Diagnosis:
    found = f"chargewatch {__version__} on Python {platform.python_version()}, {sys.platform}"
    return Diagnosis(name="python", state="ok", found=found)


def features_check(capabilities: Capabilities) -> Diagnosis:
    """Return what an engine can do, as a failure where its compression would lose readings."""
    have = {
        "hypertables": capabilities.hypertables,
        "columnstore": capabilities.columnstore,
        "retention policies": capabilities.policies,
    }
    found = ", ".join(f"{name}: {'yes' if is_there else 'no'}" for name, is_there in have.items())
    if fault := capabilities.columnstore_fault:
        step = "upgrade TimescaleDB (ALTER EXTENSION timescaledb UPDATE); compress nothing before"
        return Diagnosis(name="features", state="failed", found=f"{found}; {fault}", next_step=step)
    if all(have.values()):
        return Diagnosis(name="features", state="ok", found=found)
    if capabilities.hypertables:
        step = "the community edition of TimescaleDB adds compression; without it, retention is "
        step += "done by `chargewatch db retention`"
    else:
        step = "fine for a demo and small fleets; for a city install TimescaleDB 2.19 or newer"
    lost = capabilities.losses
    return Diagnosis(name="features", state="note", found=found, lost=lost, next_step=step)


def _rules(settings: Settings) -> Diagnosis:
    """Return by which regulation runs of today judge, and whether it holds."""
    try:
        rules = rule_set(settings.mpe_rules)
    except ChargewatchError as exc:
        step = "set CHARGEWATCH_MPE_RULES to one of them"
        return Diagnosis(name="rules", state="failed", found=str(exc), next_step=step)
    holds = f"from {rules.valid_from}" + (f" to {rules.valid_until}" if rules.valid_until else "")
    found = f"{rules.name}: {rules.regulation}, {holds}"
    if not rules.checked_against_source:
        found += ", not checked against the text of the regulation"
    in_force = rules.in_force(datetime.now(settings.zone).date())
    if not in_force:
        found += ", not in force today"
    is_sound = in_force and rules.checked_against_source
    step = "" if is_sound else "compare it with the regulation, or choose CHARGEWATCH_MPE_RULES"
    return Diagnosis(name="rules", state="ok" if is_sound else "note", found=found, next_step=step)


async def _quarantine(database: Database) -> Diagnosis:
    async with database.connect() as connection:
        waiting = await message_rows.quarantine_waiting(connection, scope=None)
    if not waiting:
        return Diagnosis(name="quarantine", state="ok", found="nothing waits to be read again")
    return Diagnosis(
        name="quarantine",
        state="note",
        found=f"{waiting} messages that the platform failed on wait to be read again",
        next_step="look at the log of ingest, upgrade, then `chargewatch quarantine replay`",
    )


def archive_check(archive: WalArchive) -> Diagnosis:
    """Return whether what was committed lies in a second place soon."""
    if not archive.is_on:
        return Diagnosis(
            name="backup",
            state="note",
            found="the server archives no WAL",
            lost="with its disk, everything since the last dump; gateways keep nothing after a "
            "receipt",
            next_step="see docs/operating.md, Backup",
        )
    if archive.failed_file:
        return Diagnosis(
            name="backup",
            state="failed",
            found=f"the server can't archive {archive.failed_file}: WAL heaps up on its disk",
            next_step="see the server's log; is the archive mounted, writable and not full?",
        )
    newest = archive.last_archived_at
    since = "nothing yet" if newest is None else f"newest file {newest:%Y-%m-%d %H:%M:%S} UTC"
    return Diagnosis(name="backup", state="ok", found=f"the server archives its WAL, {since}")


async def _archive(database: Database) -> Diagnosis:
    async with database.connect() as connection:
        return archive_check(await wal_archive(connection))


async def _database(settings: Settings) -> list[Diagnosis]:
    if not settings.database_url:
        return [
            Diagnosis(
                name="database",
                state="note",
                found="CHARGEWATCH_DATABASE_URL is not set",
                next_step="set it to postgresql://user@host/name, or try `chargewatch demo`",
            )
        ]
    address = address_of(settings.database_url)
    try:
        async with open_database(settings.database_url) as database:
            capabilities = database.capabilities
            have, need = await current_revision(database.engine), newest_revision()
            more = [await _archive(database)]
            if have == need:
                more.append(await _quarantine(database))
    except ChargewatchError as exc:
        return [
            Diagnosis(name="database", state="failed", found=str(exc), next_step="mend and repeat")
        ]
    is_newest = have == need
    return [
        Diagnosis(name="database", state="ok", found=f"{capabilities.engine} at {address}"),
        features_check(capabilities),
        Diagnosis(
            name="schema",
            state="ok" if is_newest else "failed",
            found=f"revision {have or 'none'}, this version needs {need}",
            next_step="" if is_newest else "run `chargewatch migrate`",
        ),
        *more,
    ]


def ask_broker(settings: Settings) -> BrokerAnswer:
    """Connect to the configured broker with MQTT 5 and return what it answered.

    Raises: BrokerError with the address and the broker's reason.
    """
    parts = urlsplit(settings.require_mqtt_url())
    secure = parts.scheme == "mqtts"
    if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
        raise BrokerError(
            "CHARGEWATCH_MQTT_URL is not a broker's address; use mqtt://user@host:1883 or mqtts://"
        )
    port = parts.port or (8883 if secure else 1883)
    address = f"{parts.hostname}:{port}"
    answers: list[tuple[ReasonCode, Properties | None]] = []
    versions: list[str] = []

    def on_connect(_c: Any, _u: Any, _f: Any, reason: ReasonCode, more: Properties | None) -> None:
        answers.append((reason, more))

    def on_message(_c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        versions.append(message.payload.decode("utf-8", "replace"))

    # An identity of its own: the ingest service's would throw that one out.
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id="", protocol=paho.MQTTv5, reconnect_on_failure=False
    )
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect_timeout = BROKER_TIMEOUT_S
    if parts.username:
        client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
    try:
        if secure:
            client.tls_set_context(ssl.create_default_context(cafile=settings.mqtt_ca_file or None))
        client.connect(parts.hostname, port, clean_start=True)
        _await_answer(client, answers, wait_s=BROKER_TIMEOUT_S)
        if answers and not answers[0][0].is_failure:
            # Asked last: a broker that hasn't the topic may close the connection.
            client.subscribe(VERSION_TOPIC)
            _await_answer(client, versions, wait_s=VERSION_WAIT_S)
    except (OSError, ValueError) as exc:
        raise BrokerError(f"no connection to the broker at {address}: {exc}") from exc
    finally:
        client.disconnect()
        client.loop(timeout=0.1)
    if not answers:
        raise BrokerError(f"the broker at {address} does not answer an MQTT 5 connection")
    reason, more = answers[0]
    if reason.is_failure:
        raise BrokerError(f"the broker at {address} refuses us: {reason}")
    return BrokerAnswer(
        protocol="MQTT 5",
        version=versions[0] if versions else "",
        receive_maximum=getattr(more, "ReceiveMaximum", None),
        maximum_packet_bytes=getattr(more, "MaximumPacketSize", None),
    )


def _await_answer(client: paho.Client, answers: list[Any], *, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not answers and time.monotonic() < deadline:
        if client.loop(timeout=0.2) != paho.MQTT_ERR_SUCCESS:
            return


def _broker(settings: Settings) -> Diagnosis:
    if not settings.mqtt_url:
        return Diagnosis(
            name="broker",
            state="note",
            found="CHARGEWATCH_MQTT_URL is not set",
            next_step="set it to mqtt://user@host:1883, or try `chargewatch demo`",
        )
    try:
        answer = ask_broker(settings)
    except ChargewatchError as exc:
        step = "check CHARGEWATCH_MQTT_URL and that the broker runs and knows this user"
        return Diagnosis(name="broker", state="failed", found=str(exc), next_step=step)
    parts = urlsplit(settings.mqtt_url)
    name = answer.version or "a broker that doesn't tell its name"
    found = f"{name}, {answer.protocol} at {parts.hostname}:{parts.port or 1883}"
    if answer.receive_maximum:
        found += f", receive maximum {answer.receive_maximum}"
    if answer.maximum_packet_bytes:
        found += f", packets to {answer.maximum_packet_bytes} bytes"
    limit = answer.maximum_packet_bytes
    if limit is not None and limit < 1_100_000:
        step = "the telemetry contract allows payloads of 1 MiB: raise the broker's limit"
        return Diagnosis(name="broker", state="failed", found=found, next_step=step)
    lost = "" if answer.version else "ingest's figure of what waits at the broker"
    return Diagnosis(name="broker", state="ok", found=found, lost=lost)


def _demo_database() -> Diagnosis:
    if wheel_programs() is None:
        return Diagnosis(name="demo database", state="note", found="none", next_step=INSTALL)
    plain = Capabilities(postgres_version="18", timescale_version=None, timescale_license=None)
    found = f"{plain.engine} from a wheel"
    return Diagnosis(name="demo database", state="ok", found=found, lost=plain.losses)


def _demo_broker(wanted: str) -> Diagnosis:
    name, program = "demo broker", choose_program(wanted)
    mosquitto = mosquitto_program()
    if program == "mosquitto":
        if mosquitto is None:
            step = "install the package mosquitto, or unset CHARGEWATCH_BROKER_PROGRAM"
            return Diagnosis(name=name, state="failed", found="no Mosquitto", next_step=step)
        return Diagnosis(
            name=name, state="ok", found=f"Mosquitto at {mosquitto}", lost=LOSSES[program]
        )
    if not rumqttd_available():
        return Diagnosis(name=name, state="note", found="none", next_step=INSTALL)
    step = "install Mosquitto" if mosquitto is None else "unset CHARGEWATCH_BROKER_PROGRAM"
    found = "rumqttd from a wheel"
    return Diagnosis(name=name, state="note", found=found, lost=LOSSES[program], next_step=step)


def _embedded(settings: Settings) -> list[Diagnosis]:
    return [_demo_database(), _demo_broker(settings.broker_program)]


@click.command("doctor")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> int:
    """Say what is reachable and how to mend the rest. Which engine and edition, what is lost by it.

    Exit status 1 when something that is configured does not work.
    """
    settings = settings_of(context)
    checks = [
        _python(),
        _rules(settings),
        *run_async(_database(settings)),
        _broker(settings),
        *_embedded(settings),
    ]
    failed = [check for check in checks if check.state == "failed"]
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(f"{MARKS[check.state]}  {check.name:{width}}  {check.found}")
            if check.lost:
                click.echo(f"{'':{width + 10}}lost: {check.lost}")
            if check.next_step:
                click.echo(f"{'':{width + 10}}-> {check.next_step}")
    if failed:
        say(f"chargewatch: {', '.join(check.name for check in failed)}: not working")
    return 1 if failed else 0
