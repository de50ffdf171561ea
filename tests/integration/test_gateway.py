"""`chargewatch gateway` as a process: kills, receipts, full disks, foreign clients."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import asyncpg
import pytest

from chargewatch.local.broker import EmbeddedBroker
from running import RunCommand

BEGIN = datetime.now(UTC) - timedelta(days=1)
QUICK = ("--linger-ms", "20", "--batch-items", "5", "--reconnect-max-s", "0.5")
Receipt = dict[str, Any]


def reading(number: int) -> dict[str, Any]:
    at = (BEGIN + timedelta(seconds=number)).isoformat()
    return {"connector": f"C{number % 3}", "at": at, "energy_wh": number}


def write_lines(path: Path, numbers: range, *, more: str = "") -> None:
    with path.open("a") as file:
        file.write("".join(json.dumps(reading(number)) + "\n" for number in numbers) + more)


def stored(document: dict[str, Any]) -> Receipt:
    return {
        "topic": "registers",
        "seq": document["seq"],
        "stored": len(document["readings"]),
        "duplicate": 0,
        "rejected": 0,
        "errors": [],
    }


@dataclass
class Platform:
    """Stands in for the platform: remembers what came, answers as a test wants."""

    client: aiomqtt.Client
    answer: Callable[[dict[str, Any]], Receipt | None] = stored
    payloads: dict[int, set[bytes]] = field(default_factory=dict)
    arrivals: list[int] = field(default_factory=list)
    statuses: list[dict[str, Any]] = field(default_factory=list)

    def numbers(self) -> list[int]:
        """Return the energies of all distinct messages."""
        return sorted(
            reading["energy_wh"]
            for payloads in self.payloads.values()
            for payload in payloads
            for reading in json.loads(payload)["readings"]
        )

    async def listen(self) -> None:
        async for message in self.client.messages:
            document = json.loads(message.payload)
            kind = message.topic.value.rpartition("/")[2]
            if kind == "status":
                self.statuses.append(document)
            if kind != "registers":
                continue
            self.payloads.setdefault(document["seq"], set()).add(message.payload)
            self.arrivals.append(document["seq"])
            if (receipt := self.answer(document)) is not None:
                body = json.dumps({"receipts": [receipt]})
                await self.client.publish("cw/v1/OP/ST/receipt", body, qos=1)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


def mqtt(url: str, identifier: str) -> aiomqtt.Client:
    parts = urlsplit(url)
    return aiomqtt.Client(
        parts.hostname or "",
        parts.port or 1883,
        identifier=identifier,
        protocol=aiomqtt.ProtocolVersion.V5,
    )


@asynccontextmanager
async def platform(url: str, **options: Any) -> AsyncIterator[Platform]:
    async with mqtt(url, "platform") as client:
        await client.subscribe("cw/v1/+/+/+", qos=1)
        running = Platform(client, **options)
        task = asyncio.create_task(running.listen())
        try:
            yield running
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class GatewayProcess:
    """The real command, many times on one spool."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder, self._url = folder, url
        self.input = folder / "lines"
        self.log = folder / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, file_bytes: int | None = None, **pipes: Any) -> None:
        def limit() -> None:
            if file_bytes:
                # The hard limit stays, so that the test can lift it again.
                resource.setrlimit(
                    resource.RLIMIT_FSIZE,
                    (file_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]),
                )

        source = [] if "stdin" in pipes else [str(self.input)]
        named = ["--operator", "OP", "--station", "ST", "--spool", str(self.folder / "spool")]
        arguments = ["-m", "chargewatch", "gateway", *source, *named, *QUICK, *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, "CHARGEWATCH_MQTT_URL": self._url},
                stderr=log,
                preexec_fn=limit,
                **{"stdout": subprocess.PIPE, **pipes},
            )

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.communicate(timeout=10)

    async def end(self, *, signalled: bool = False) -> bytes:
        """Wait for a good end and return what it printed."""
        assert self.process is not None
        if signalled:
            self.process.send_signal(signal.SIGTERM)
        out, _ = await asyncio.to_thread(self.process.communicate, timeout=30)
        assert self.process.returncode == 0, self.log.read_text()
        return out or b""

    async def until_logged(self, words: str) -> None:
        async with asyncio.timeout(30):
            while words not in self.log.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.fixture
def gateway(broker_url: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    running = GatewayProcess(broker_url, tmp_path)
    yield running
    running.kill()


async def test_lines_reach_the_database_and_leave_the_spool(
    gateway: GatewayProcess, broker_url: str, database_url: str, run_command: RunCommand
) -> None:
    environment = {"CHARGEWATCH_MQTT_URL": broker_url, "CHARGEWATCH_DATABASE_URL": database_url}
    await asyncio.to_thread(run_command, "ingest", "--until-idle", "0.5", env=environment)
    ingest = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "chargewatch", "ingest"],
        env=os.environ | environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        bad = '{"connector": "C1", "at": "2026-03-01T08:00:00", "energy_wh": 1}\nno JSON\n\n'
        write_lines(gateway.input, range(40), more=bad + json.dumps(reading(7)) + "\n")
        gateway.start("--once", "--json")
        totals = json.loads(await gateway.end())
        # 40 readings, one without an offset, one said again.
        assert (totals["stored"], totals["duplicate"], totals["rejected"]) == (40, 1, 1)
        assert (totals["lines"], totals["bad_lines"], totals["backlog"]) == (44, 1, 0)
        gateway.start("--dead-letters")
        letters = [json.loads(line) for line in (await gateway.end()).splitlines()]
        assert [(letter["code"], letter["line"]) for letter in letters] == [
            ("bad_line", 42),
            ("naive_time", None),
        ]
        # What was read once is not read again: only what was appended is sent.
        write_lines(gateway.input, range(100, 103))
        gateway.start("--once", "--json")
        assert json.loads(await gateway.end())["stored"] == 3
        connection = await asyncpg.connect(database_url)
        assert await connection.fetchval("SELECT count(*) FROM register_reading") == 43
        await connection.close()
    finally:
        ingest.terminate()
        ingest.wait(30)


async def test_killed_at_any_moment_it_loses_nothing_and_no_seq_has_two_contents(
    gateway: GatewayProcess, broker_url: str
) -> None:
    chance = random.Random(3)
    async with platform(broker_url) as received:
        received.answer = lambda document: stored(document) if chance.random() < 0.7 else None
        for round_ in range(8):
            write_lines(gateway.input, range(round_ * 40, round_ * 40 + 25))
            gateway.start()
            before = len(received.arrivals)
            await received.until(lambda before=before: len(received.arrivals) > before)  # type: ignore[misc]
            write_lines(gateway.input, range(round_ * 40 + 25, round_ * 40 + 40))
            await asyncio.sleep(chance.uniform(0, 0.1))
            gateway.kill()
        received.answer = stored
        gateway.start("--once")
        await gateway.end()
    assert all(len(payloads) == 1 for payloads in received.payloads.values())
    assert received.numbers() == list(range(320))
    assert sorted(received.payloads) == list(range(1, len(received.payloads) + 1))


async def test_a_message_is_sent_again_until_its_receipt_comes(
    gateway: GatewayProcess, broker_url: str
) -> None:
    async with platform(broker_url) as received:
        received.answer = lambda document: None
        write_lines(gateway.input, range(3))
        gateway.start("--once", "--json", "--resend-s", "0.3")
        await received.until(lambda: len(received.arrivals) >= 4)
        foreign = {"topic": "registers", "seq": 1, "stored": 9, "duplicate": 0, "rejected": 0}
        received.answer = lambda document: foreign
        count = len(received.arrivals)
        await received.until(lambda: len(received.arrivals) >= count + 2)
        received.answer = stored
        totals = json.loads(await gateway.end())
    assert set(received.arrivals) == {1}
    assert totals["resent"] >= 5
    assert totals["foreign_receipts"] >= 1
    assert (totals["receipts"], totals["backlog"]) == (1, 0)


async def test_the_broker_goes_and_comes_back(
    gateway: GatewayProcess, broker: EmbeddedBroker
) -> None:
    async with platform(broker.url) as received:
        received.answer = lambda document: None
        write_lines(gateway.input, range(20))
        gateway.start("--json")
        await received.until(lambda: len(received.payloads) == 4)
        with suppress(aiomqtt.MqttError):
            await asyncio.to_thread(broker.kill)
    write_lines(gateway.input, range(20, 40))
    await gateway.until_logged("broker_away")
    await asyncio.to_thread(broker.start)
    async with platform(broker.url) as again:
        await again.until(lambda: len(again.numbers()) == 40)
        assert again.numbers() == list(range(40))
        # The same bytes with the same seq.
        assert all(again.payloads[seq] == bodies for seq, bodies in received.payloads.items())
        await again.until(lambda: bool(again.statuses))
        await gateway.end(signalled=True)
        await again.until(lambda: again.statuses[-1]["online"] is False)
    # What was told before is told again: a status has no receipt.
    assert again.statuses[0]["online"] is True
    seqs = sorted({status["seq"] for status in again.statuses})
    assert seqs == list(range(1, seqs[-1] + 1))


async def test_a_full_disk_stops_the_input_and_loses_nothing(
    gateway: GatewayProcess, broker_url: str
) -> None:
    async with platform(broker_url) as received:
        received.answer = lambda document: None
        reading_end, writing_end = os.pipe()
        os.set_blocking(writing_end, False)
        gateway.start("--json", stdin=reading_end, file_bytes=300_000)
        os.close(reading_end)
        with os.fdopen(writing_end, "wb", buffering=0) as pipe:
            await received.until(lambda: bool(received.statuses))
            # Lines of 2 kB: what the spool can't take stays in the pipe.
            lines = [json.dumps({**reading(n), "pad": "x" * 2_000}) + "\n" for n in range(200)]
            waiting = b"".join(line.encode() for line in lines)

            async def feed() -> None:
                nonlocal waiting
                while waiting:
                    try:
                        waiting = waiting[os.write(pipe.fileno(), waiting[:32_768]) :]
                    except BlockingIOError:
                        await asyncio.sleep(0.02)

            feeding = asyncio.create_task(feed())
            await gateway.until_logged("spool_full")
            assert not feeding.done()
            assert gateway.process is not None
            received.answer = stored
            infinity = resource.RLIM_INFINITY
            resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (infinity, infinity))
            await asyncio.wait_for(feeding, 30)
        # The end of the pipe is the end of the input: what is out is sent again on a new run.
        await received.until(lambda: len(received.numbers()) == 200)
        assert received.numbers() == list(range(200))
        assert "spool_has_room" in gateway.log.read_text()


async def test_a_pipe_is_acknowledged_line_by_line(
    gateway: GatewayProcess, broker_url: str
) -> None:
    """A producer that repeats from the last acknowledged line loses nothing to a kill."""
    async with platform(broker_url) as received:
        gateway.start("--acknowledge", stdin=subprocess.PIPE)
        process = gateway.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(10):
            process.stdin.write(json.dumps(reading(number)).encode() + b"\n")
        process.stdin.flush()
        seen = 0
        while seen < 10:
            seen = int(await asyncio.to_thread(process.stdout.readline))
        gateway.kill()
        gateway.start("--once", stdin=subprocess.DEVNULL)
        await gateway.end()
        assert received.numbers() == list(range(10))


async def test_two_gateways_with_one_client_id_lose_nothing(
    gateway: GatewayProcess, broker_url: str
) -> None:
    async with platform(broker_url) as received:
        write_lines(gateway.input, range(30))
        gateway.start()
        await received.until(lambda: len(received.payloads) >= 6)
        for _ in range(3):
            write_lines(gateway.input, range(30, 60))
            with suppress(aiomqtt.MqttError):
                async with mqtt(broker_url, "OP:ST") as other:
                    await other.subscribe("cw/v1/OP/ST/receipt", qos=1)
                    await asyncio.sleep(0.3)
        # Mosquitto 2.0.11 cuts the connection without saying why.
        await gateway.until_logged("broker_away")
        await received.until(lambda: set(received.numbers()) == set(range(60)))
        await gateway.end(signalled=True)


async def test_a_connection_closed_before_the_log_in_is_tried_again_at_once(
    tmp_path: Path,
) -> None:
    """A load balancer whose broker is away takes connections and closes them."""
    tries = 0

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    gateway = GatewayProcess(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}", tmp_path)
    gateway.input.touch()
    gateway.start()
    try:
        async with asyncio.timeout(14):
            while tries < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        gateway.kill()
        server.close()


def test_wrong_usage_is_said(run_command: RunCommand, tmp_path: Path, broker_url: str) -> None:
    named = ("gateway", "--operator", "OP", "--station", "ST", "--spool", str(tmp_path / "s"))
    environment = {"CHARGEWATCH_MQTT_URL": broker_url}
    for arguments, code, words in (
        ((*named, str(tmp_path / "missing")), 1, "can't read"),
        ((*named, str(tmp_path)), 1, "is not a file"),
        ((*named, "--json", "--acknowledge"), 2, "choose one"),
        (("gateway", "--operator", "a/b", "--station", "ST"), 2, "operator is 1 to 64"),
    ):
        done = run_command(*arguments, env=environment, stdin="")
        assert done.returncode == code, done.stderr
        assert words in done.stderr
    no_broker = run_command(*named, env={"CHARGEWATCH_MQTT_URL": "http://x"}, stdin="")
    assert "use mqtt://" in no_broker.stderr
