"""What ingest takes from aiomqtt and paho below their public face; fails when they change."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiomqtt
import pytest
from tests.integration.ingest_gateway import Gateway

from chargewatch.ingest.broker import CONNECT_S, connection
from chargewatch.ingest.message import Arrival
from chargewatch.ingest.source import MqttSource, SourceOptions
from chargewatch.mqtt.address import parse_broker_url
from chargewatch.wire.topics import filters


@asynccontextmanager
async def source(url: str, *, receive_maximum: int = 100, deliver=None):
    arrived: list[Arrival] = []
    made = MqttSource(
        parse_broker_url(url),
        SourceOptions(
            client_id="source-under-test",
            filters=filters(),
            receive_maximum=receive_maximum,
            session_expiry_s=600,
        ),
        deliver=deliver or arrived.append,
        drop=lambda: None,
    )
    task = asyncio.create_task(made.run())
    async with asyncio.timeout(10):
        await made.connected.wait()
        await asyncio.sleep(0.2)
    try:
        yield made, arrived
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def payloads(arrived: list[Arrival]) -> list[bytes]:
    return [arrival.payload for arrival in arrived]


async def test_nothing_is_acknowledged_before_it_is_asked_for(broker_url: str):
    async with Gateway(broker_url, "OP1", "ST1") as gateway:
        async with source(broker_url) as (first, arrived):
            for number in range(5):
                await gateway.send_bytes("registers", b"%d" % number)
            await until(lambda: len(arrived) == 5)
            assert first.finish(arrived[:2], ()) == 2
            await until(lambda: first.unsent == 0)
            await asyncio.sleep(0.2)
        async with source(broker_url) as (second, again):
            await until(lambda: len(again) >= 3)
            await asyncio.sleep(0.2)
            assert payloads(again) == [b"2", b"3", b"4"]
            # A handle of another connection acknowledges nothing.
            assert arrived[4].handle is not None
            assert second.generation == arrived[4].handle.generation == 1
            second.generation += 1
            assert second.finish(again, ()) == 0


async def test_the_broker_sends_no_more_than_the_receive_maximum(broker_url: str):
    async with (
        Gateway(broker_url, "OP1", "ST1") as gateway,
        source(broker_url, receive_maximum=10) as (made, arrived),
    ):
        for number in range(25):
            await gateway.send_bytes("registers", b"%d" % number)
        await until(lambda: len(arrived) == 10)
        await asyncio.sleep(0.3)
        assert len(arrived) == made.unacknowledged == 10
        # Mosquitto 2.0.11 then sends all 15 others, not 10: memory has a bound of its own.
        made.finish(arrived[:10], ())
        await until(lambda: len(arrived) >= 20)
        made.finish(arrived[10:20], ())
        await until(lambda: len(arrived) == 25)
        assert payloads(arrived) == [b"%d" % number for number in range(25)]


async def test_reading_stops_while_too_much_is_held_and_goes_on(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("chargewatch.ingest.source.MAX_HELD_BYTES", 1 << 20)
    async with (
        Gateway(broker_url, "OP1", "ST1") as gateway,
        source(broker_url) as (made, arrived),
    ):
        for number in range(40):
            await gateway.send_bytes("registers", b"%d" % number + b"x" * 200_000)
        await asyncio.sleep(0.5)
        held = len(arrived)
        assert 5 <= held < 15
        done = 0
        async with asyncio.timeout(20):
            while done < 40:
                await until(lambda: len(arrived) > done)  # noqa: B023
                count = len(arrived)
                made.finish(arrived[done:count], ())
                done = count
        assert [int(p.partition(b"x")[0]) for p in payloads(arrived)] == list(range(40))
        assert made.generation == 1


async def test_receipts_go_out_in_order_and_before_the_acknowledgements(broker_url: str):
    async with (
        Gateway(broker_url, "OP1", "ST1") as gateway,
        source(broker_url) as (made, arrived),
        gateway.client("listener") as listener,
    ):
        await listener.subscribe("cw/v1/+/+/receipt", qos=1)
        await gateway.send_bytes("registers", b"x")
        await until(lambda: arrived)
        topic = gateway.topic("receipt")
        made.finish(arrived, [(topic, b"%d" % number) for number in range(300)])
        got = []
        async with asyncio.timeout(10):
            async for message in listener.messages:
                got.append(message.payload)
                if len(got) == 300:
                    break
        assert got == [b"%d" % number for number in range(300)]
        await until(lambda: made.unsent == 0)


async def test_a_message_of_a_mebibyte_comes_whole_between_small_ones(broker_url: str):
    async with (
        Gateway(broker_url, "OP1", "ST1") as gateway,
        source(broker_url) as (_, arrived),
    ):
        sent = [b"a", b"b" * (1 << 20), b"c"]
        for payload in sent:
            await gateway.send_bytes("registers", payload, content_type="application/json+gzip")
        await until(lambda: len(arrived) == 3)
        assert payloads(arrived) == sent
        assert {arrival.content_type for arrival in arrived} == {"application/json+gzip"}


async def test_what_could_not_be_taken_in_comes_again(broker_url: str, monkeypatch):
    """Also where reading goes on because something was acknowledged."""
    monkeypatch.setattr("chargewatch.ingest.source.MAX_HELD_BYTES", 1_000)  # two messages
    taken: list[Arrival] = []
    failed: list[Arrival] = []

    def deliver(arrival: Arrival) -> None:
        if len(taken) == 2 and not failed:
            failed.append(arrival)
            raise MemoryError
        taken.append(arrival)

    async with (
        Gateway(broker_url, "OP1", "ST1") as gateway,
        source(broker_url, deliver=deliver) as (made, _),
    ):
        for number in range(2):
            await gateway.send_bytes("registers", b"%d" % number)
        await until(lambda: len(taken) == 2)
        for number in range(2, 4):
            await gateway.send_bytes("registers", b"%d" % number)
        done = 0
        while {b"2", b"3"} - set(payloads(taken)):
            await until(lambda: len(taken) > done)  # noqa: B023
            count = len(taken)
            made.finish(taken[done:count], ())
            done = count
        assert failed
        assert made.generation == 2


async def test_a_broker_that_refuses_the_log_in_for_a_while_costs_no_receipt(monkeypatch):
    monkeypatch.setattr("chargewatch.ingest.source.random.uniform", lambda *_: 0.01)
    log_ins, fates = [], []
    delivered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4_096)
        log_ins.append(writer)
        refuses = 2 <= len(log_ins) <= 6
        writer.write(b"\x20\x03\0\x88\0" if refuses else b"\x20\x03\0\0\0")
        sent = b""
        while b"receipt" not in sent and (piece := await reader.read(4_096)):
            sent += piece
        if b"receipt" in sent and len(log_ins) > 1:
            delivered.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made = MqttSource(
        parse_broker_url(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"),
        SourceOptions(client_id="x", filters=["t"], receive_maximum=10, session_expiry_s=60),
        deliver=lambda _: None,
        drop=lambda: None,
        count_receipts=lambda fate, number: fates.append(fate),
    )
    task = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(30):
            await made.connected.wait()
            made.finish([], [("cw/v1/OP1/ST1/receipt", b"{}")])
            await delivered.wait()
        assert len(log_ins) == 7
        assert "dropped" not in fates
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()


async def test_a_connection_closed_before_the_log_in_has_failed_at_once():
    """So does a load balancer whose broker is away."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(aiomqtt.MqttError, match="closed before the log-in"):
            async with connection(
                parse_broker_url(f"mqtt://127.0.0.1:{port}"), "early", clean_start=True
            ):
                pass
        assert asyncio.get_running_loop().time() - begun < CONNECT_S / 2
    finally:
        server.close()
