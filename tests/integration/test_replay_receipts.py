"""`--receipts` of `replay` and `simulate`: a message ends with its receipt, not its PUBACK."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest
from replay_case import write_messages

from chargewatch.errors import BrokerError
from chargewatch.local.broker import EmbeddedBroker
from chargewatch.mqtt.address import broker_address
from chargewatch.settings import Settings
from chargewatch.simulators.message_file import read_messages
from chargewatch.simulators.publisher import Publisher
from chargewatch.simulators.receipts import ReceiptBook
from running import RunCommand


@asynccontextmanager
async def answering(url: str, *, deaf: int) -> AsyncIterator[Counter[tuple[str, int]]]:
    """Answer each message with a receipt, but not the first `deaf` times; yield the arrivals."""
    port = int(url.rpartition(":")[2])
    seen: Counter[tuple[str, int]] = Counter()
    async with aiomqtt.Client(
        "127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5, identifier="platform"
    ) as client:
        await client.subscribe("cw/v1/+/+/registers", qos=1)

        async def answer() -> None:
            async for message in client.messages:
                topic, seq = message.topic.value, json.loads(message.payload)["seq"]
                seen[topic, seq] += 1
                if seen[topic, seq] > deaf:
                    receipt = {"topic": "registers", "seq": seq, "stored": 0}
                    body = json.dumps({"receipts": [receipt]})
                    await client.publish(topic.replace("registers", "receipt"), body, qos=1)

        task = asyncio.create_task(answer())
        try:
            yield seen
        finally:
            # Before Python 3.12 `wait_for`, in `publish`, may swallow a cancellation: ask again.
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=0.2)


async def test_what_has_no_receipt_is_sent_again(broker_url: str, tmp_path: Path) -> None:
    file = write_messages(tmp_path / "messages.jsonl", 300)
    address = broker_address(Settings(mqtt_url=broker_url))
    async with answering(broker_url, deaf=1) as seen:
        publisher = Publisher(address, in_flight=50, book=ReceiptBook(resend_s=0.5))
        await asyncio.wait_for(publisher.publish_all(read_messages(file)), 30)
    assert len(seen) == 300
    assert min(seen.values()) == 2
    progress = publisher.progress
    assert (progress.messages, progress.receipts) == (300, 300)
    assert progress.resent >= 300


async def test_what_the_broker_acknowledged_and_forgot_is_sent_again(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Nobody listens before the broker dies: the PUBACKs came, and mean nothing."""
    file = write_messages(tmp_path / "messages.jsonl", 60)
    address = broker_address(Settings(mqtt_url=broker.url))
    publisher = Publisher(address, book=ReceiptBook(resend_s=2))
    publishing = asyncio.create_task(publisher.publish_all(read_messages(file)))
    async with asyncio.timeout(30):
        while publisher.progress.messages < 60:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert not publishing.done()
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)
    async with answering(broker.url, deaf=0) as seen:
        await asyncio.wait_for(publishing, 60)
    assert len(seen) == 60
    assert (publisher.progress.messages, publisher.progress.receipts) == (60, 60)


async def test_silence_of_the_platform_is_an_error(broker_url: str, tmp_path: Path) -> None:
    file = write_messages(tmp_path / "messages.jsonl", 3)
    address = broker_address(Settings(mqtt_url=broker_url))
    publisher = Publisher(address, book=ReceiptBook(patience_s=0.5))
    with pytest.raises(BrokerError, match="3 messages have no receipt"):
        await asyncio.wait_for(publisher.publish_all(read_messages(file)), 30)


def test_replay_and_simulate_count_the_receipts_of_ingest(
    broker_url: str, database_url: str, run_command: RunCommand, tmp_path: Path
) -> None:
    environment = {"CHARGEWATCH_MQTT_URL": broker_url, "CHARGEWATCH_DATABASE_URL": database_url}
    run_command("ingest", "--until-idle", "0.5", env=environment)
    ingest = subprocess.Popen(
        [sys.executable, "-m", "chargewatch", "ingest"],
        env=os.environ | environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        city = ("quiet-city", "--set", "days=1", "--set", "stations=3", "--gateways", "own")
        simulated = run_command("simulate", *city, "--receipts", "--json", env=environment)
        assert simulated.returncode == 0, simulated.stderr
        figures = json.loads(simulated.stdout)
        assert 0 < figures["receipts"] < figures["published"]  # a status has none
        file = str(write_messages(tmp_path / "messages.jsonl", 30))
        replayed = run_command("replay", file, "--receipts", "--json", env=environment)
        assert replayed.returncode == 0, replayed.stderr
        figures = json.loads(replayed.stdout)
        assert (figures["published"], figures["receipts"]) == (30, 30)
    finally:
        ingest.terminate()
        ingest.wait(30)
