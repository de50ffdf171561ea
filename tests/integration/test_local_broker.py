"""The embedded brokers: roles, limits, what survives."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiomqtt
import psutil
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from chargewatch.errors import EngineError
from chargewatch.local import broker as broker_module
from chargewatch.local.broker import EmbeddedBroker
from chargewatch.local.engines import start_broker
from chargewatch.local.processes import port_answers, temporary_folder
from chargewatch.settings import load_settings


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder("chargewatch-broker-") as made:
        yield made


@pytest.fixture(params=[pytest.param("mosquitto", marks=pytest.mark.mosquitto), "rumqttd"])
def guarded(request: pytest.FixtureRequest, folder: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(folder, operators=["OP1", "OP2"], program=request.param) as running:
        yield running


def client(
    url: str, identifier: str, *, persistent: bool = False, timeout_s: float = 10
) -> aiomqtt.Client:
    parts = urlsplit(url)
    properties = Properties(PacketTypes.CONNECT)
    if persistent:
        properties.SessionExpiryInterval = 3600
    return aiomqtt.Client(
        parts.hostname or "",
        parts.port or 0,
        identifier=identifier,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=not persistent,
        properties=properties,
        timeout=timeout_s,
    )


async def received(subscriber: aiomqtt.Client, *, wait_s: float) -> list[str]:
    """Return the topics of what arrives until nothing has come for a while."""
    topics = []
    messages = aiter(subscriber.messages)
    while True:
        try:
            async with asyncio.timeout(wait_s):
                topics.append((await anext(messages)).topic.value)
        except TimeoutError:
            return topics


async def test_message_of_an_operator_reaches_the_platform(guarded: EmbeddedBroker) -> None:
    async with client(guarded.url, "platform") as platform:
        await platform.subscribe("cw/v1/+/+/registers", qos=1)
        async with client(guarded.url_of("OP1"), "OP1:S1") as gateway:
            await gateway.publish("cw/v1/OP1/S1/registers", b"{}", qos=1)
        assert await received(platform, wait_s=1) == ["cw/v1/OP1/S1/registers"]


async def test_without_a_password_nobody_gets_in(guarded: EmbeddedBroker) -> None:
    with pytest.raises(aiomqtt.MqttError):
        # rumqttd closes the connection without an answer.
        async with client(f"mqtt://127.0.0.1:{guarded.port}", "stranger", timeout_s=3):
            pass


@pytest.mark.mosquitto
async def test_operator_cannot_write_as_another_operator(folder: Path) -> None:
    with EmbeddedBroker(folder, operators=["OP1", "OP2"], program="mosquitto") as running:
        async with (
            client(running.url, "platform") as platform,
            client(running.url_of("OP1"), "OP1:S1") as gateway,
        ):
            await platform.subscribe("cw/v1/#", qos=1)
            for topic in (
                "cw/v1/OP2/S1/registers",
                "cw/v1/OP1/S1/receipt",
                "cw/v1/OP1/S1/surprise",
                "other/OP1",
            ):
                await gateway.publish(topic, b"{}", qos=1, timeout=5)
            await gateway.publish("cw/v1/OP1/S1/sessions", b"{}", qos=1)
            assert await received(platform, wait_s=1) == ["cw/v1/OP1/S1/sessions"]


@pytest.mark.mosquitto
async def test_operator_reads_its_own_receipts_only(folder: Path) -> None:
    with EmbeddedBroker(folder, operators=["OP1", "OP2"], program="mosquitto") as running:
        async with (
            client(running.url, "platform") as platform,
            client(running.url_of("OP1"), "OP1:S1") as gateway,
        ):
            await gateway.subscribe("cw/v1/OP1/S1/receipt", qos=1)
            await gateway.subscribe(
                "cw/v1/+/+/receipt", options=SubscribeOptions(qos=1, retainAsPublished=True)
            )
            await platform.publish("cw/v1/OP2/S9/receipt", b"{}", qos=1)
            await platform.publish("cw/v1/OP1/S1/receipt", b"{}", qos=1)
            topics = await received(gateway, wait_s=1)
        assert set(topics) == {"cw/v1/OP1/S1/receipt"}


async def test_payload_of_one_and_a_half_mebibyte_passes(guarded: EmbeddedBroker) -> None:
    payload = b"x" * (1024 * 1024 * 3 // 2)
    async with client(guarded.url, "platform") as platform:
        await platform.subscribe("cw/v1/+/+/registers", qos=1)
        async with client(guarded.simulator_url, "simulator") as gateway:
            await gateway.publish("cw/v1/OP1/S1/registers", payload, qos=1)
        assert await received(platform, wait_s=2) == ["cw/v1/OP1/S1/registers"]


async def test_rumqttd_loses_nothing_that_waits_for_a_session_and_keeps_its_order(
    folder: Path,
) -> None:
    # Many times what it hands out unacknowledged (100).
    payloads = [str(number).encode() for number in range(600)]
    with EmbeddedBroker(folder, anonymous=True, program="rumqttd") as running:
        async with client(running.url, "ingest", persistent=True) as subscriber:
            await subscriber.subscribe("cw/v1/+/+/registers", qos=1)
        async with client(running.url, "gateway") as gateway:
            for payload in payloads:
                await gateway.publish("cw/v1/OP1/S1/registers", payload, qos=1)
        async with client(running.url, "ingest", persistent=True) as subscriber:
            messages = aiter(subscriber.messages)
            async with asyncio.timeout(60):
                found = [bytes((await anext(messages)).payload) for _ in payloads]
    assert found == payloads


async def test_rumqttd_says_the_last_will_of_a_gateway_that_vanished(folder: Path) -> None:
    with EmbeddedBroker(folder, anonymous=True, program="rumqttd") as running:
        async with client(running.url, "ingest") as subscriber:
            await subscriber.subscribe("cw/v1/+/+/status", qos=1)
            code = (
                "import os, sys; import paho.mqtt.client as paho\n"
                "c = paho.Client(paho.CallbackAPIVersion.VERSION2, 'gateway', protocol=5)\n"
                "c.will_set('cw/v1/OP1/S1/status', b'off', qos=1, retain=True)\n"
                "c.on_connect = lambda *_: os._exit(0)\n"
                "c.connect('127.0.0.1', int(sys.argv[1])); c.loop_forever()\n"
            )
            await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", code, str(running.port)],
                check=True,
                timeout=30,
            )
            async with asyncio.timeout(30):
                message = await anext(aiter(subscriber.messages))
    assert (message.topic.value, message.payload) == ("cw/v1/OP1/S1/status", b"off")


async def test_queued_messages_survive_a_stop_and_a_crash_after_a_save(
    broker: EmbeddedBroker,
) -> None:
    async with client(broker.url, "ingest", persistent=True) as subscriber:
        await subscriber.subscribe("cw/v1/#", qos=1)
    async with client(broker.url, "gateway") as gateway:
        await gateway.publish("cw/v1/OP1/S1/registers", b"1", qos=1)
    broker.stop()
    port = broker.port
    broker.start()
    assert broker.port == port
    async with client(broker.url, "gateway") as gateway:
        await gateway.publish("cw/v1/OP1/S1/sessions", b"2", qos=1)
    broker.save()
    broker.kill()
    assert not port_answers(port)
    broker.start()
    async with client(broker.url, "ingest", persistent=True) as subscriber:
        topics = await received(subscriber, wait_s=1)
    assert topics == ["cw/v1/OP1/S1/registers", "cw/v1/OP1/S1/sessions"]


def test_broker_listens_on_this_machine_only(guarded: EmbeddedBroker) -> None:
    listening = [
        connection.laddr.ip
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == guarded.port
    ]
    assert listening == ["127.0.0.1"]


def test_files_with_passwords_are_private(guarded: EmbeddedBroker) -> None:
    open_files = [
        path
        for path in guarded.folder.rglob("*")
        if path.is_file() and path.name != "lock" and path.stat().st_mode & 0o077
    ]
    assert open_files == []
    assert (guarded.folder / "broker").stat().st_mode & 0o777 == 0o700


def test_second_broker_on_the_same_folder_is_refused(broker: EmbeddedBroker) -> None:
    with pytest.raises(EngineError, match="in use by another chargewatch"):
        EmbeddedBroker(broker.folder, anonymous=True).start()


def test_broker_left_over_by_a_killed_process_is_ended(folder: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from chargewatch.local.broker import EmbeddedBroker\n"
        "b = EmbeddedBroker(Path(sys.argv[1]), anonymous=True); b.start()\n"
        "print(b.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60
    )
    leftover = int(done.stdout)
    assert Path(f"/proc/{leftover}").exists()
    with EmbeddedBroker(folder, anonymous=True) as running:
        assert running.pid != leftover
        assert not _alive(leftover)


def _alive(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_missing_broker_names_the_next_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "mosquitto_program", lambda: None)
    monkeypatch.setattr(broker_module, "rumqttd_available", lambda: False)
    with pytest.raises(EngineError, match=r"install chargewatch\[demo\]"):
        EmbeddedBroker(folder).start()


def test_port_of_another_program_is_named(folder: Path) -> None:
    with (
        EmbeddedBroker(folder / "first", anonymous=True) as first,
        pytest.raises(EngineError, match=f"port {first.port} of 127.0.0.1 is taken"),
    ):
        EmbeddedBroker(folder / "second", anonymous=True, port=first.port).start()


@pytest.mark.mosquitto
def test_broker_that_cannot_start_shows_the_end_of_its_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MOSQUITTO_CONFIGURATION", "no_such_setting 1\n")
    with pytest.raises(EngineError, match=r"ended with status(.|\n)*no_such_setting"):
        EmbeddedBroker(folder, program="mosquitto").start()


def test_mosquitto_that_does_not_start_gives_way_to_rumqttd(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one does whose libraries are missing, or that may not read the temporary folder.
    broken = folder / "bin" / "mosquitto"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent), prepend=os.pathsep)
    said: list[str] = []
    taken = start_broker(load_settings({}), folder, operators=["OP1"], say=said.append)
    try:
        assert (taken.program, port_answers(taken.port)) == ("rumqttd", True)
    finally:
        taken.stop()
    assert "Mosquitto is installed and does not start" in said[0]
    wanted = load_settings({"CHARGEWATCH_BROKER_PROGRAM": "mosquitto"})
    with pytest.raises(EngineError, match="mosquitto ended with status 1"):
        start_broker(wanted, folder, operators=["OP1"], say=said.append)


def test_broker_process_runs_as_nobody_when_this_is_root(broker: EmbeddedBroker) -> None:
    owner = Path(f"/proc/{broker.pid}").stat().st_uid
    assert owner == (65534 if os.geteuid() == 0 else os.geteuid())
