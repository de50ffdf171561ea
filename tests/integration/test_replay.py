"""`chargewatch replay`: order, gzip, a broker that goes away, lines that can't be sent."""

import asyncio
import json

import pytest
from replay_case import Listener, sequences, write_messages

from chargewatch.mqtt.address import broker_address
from chargewatch.settings import Settings
from chargewatch.simulators.message_file import read_messages
from chargewatch.simulators.publisher import Gateway, Outgoing, Publisher, Will


@pytest.mark.parametrize("compress", [False, True])
async def test_replay_sends_every_line_in_file_order(broker_url, run_command, tmp_path, compress):
    file = write_messages(tmp_path / "messages.jsonl", 3000, compress=compress)
    async with Listener(broker_url) as listener:
        result = await asyncio.to_thread(
            run_command, "replay", str(file), "--json", env={"CHARGEWATCH_MQTT_URL": broker_url}
        )
        assert result.returncode == 0, result.stderr
        await listener.wait_for(3000)
    assert json.loads(result.stdout)["published"] == 3000
    for seen in sequences(listener.got).values():
        assert seen == list(range(1, 1001))


async def test_replay_names_the_bad_line_and_sends_those_before_it(
    broker_url, run_command, tmp_path
):
    file = write_messages(tmp_path / "messages.jsonl", 30)
    file.write_bytes(file.read_bytes() + b'{"topic": 3}\n')
    async with Listener(broker_url) as listener:
        result = await asyncio.to_thread(
            run_command, "replay", str(file), env={"CHARGEWATCH_MQTT_URL": broker_url}
        )
        await listener.wait_for(30)
    assert result.returncode == 1
    assert "line 31" in result.stderr
    assert result.stderr.count("\n") == 1


def test_replay_without_a_file_or_broker_fails_in_one_line(run_command, tmp_path):
    missing = run_command(
        "replay", str(tmp_path / "no.jsonl"), env={"CHARGEWATCH_MQTT_URL": "mqtt://127.0.0.1:1"}
    )
    assert missing.returncode == 1
    assert "no.jsonl" in missing.stderr
    unset = run_command("replay", str(write_messages(tmp_path / "m.jsonl", 1)))
    assert unset.returncode == 1
    assert "CHARGEWATCH_MQTT_URL" in unset.stderr


async def test_unacknowledged_messages_are_sent_again_when_the_broker_comes_back(broker):
    settings = Settings(mqtt_url=broker.url)
    sent = [
        Outgoing(topic="cw/v1/OP/S/registers", payload=json.dumps({"seq": i}).encode())
        for i in range(1, 6001)
    ]
    publisher = Publisher(broker_address(settings), in_flight=200)
    async with Listener(broker.url) as listener:
        task = asyncio.create_task(publisher.publish_all(sent, rate=1000))
        await listener.wait_for(500)
    before = publisher.progress.messages
    await asyncio.to_thread(broker.kill)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(broker.start)
    async with Listener(broker.url) as listener:
        await asyncio.wait_for(task, 60)
        await listener.wait_until(lambda: listener.got and b": 6000}" in listener.got[-1][1])
    assert publisher.progress.messages == 6000
    assert publisher.progress.reconnects >= 1
    assert before < 6000
    seen = [json.loads(payload)["seq"] for _, payload in listener.got]
    assert seen[-1] == 6000
    first_arrivals = list(dict.fromkeys(seen))
    assert first_arrivals == sorted(first_arrivals)


async def test_the_last_will_of_a_gateway_that_vanishes_is_published(broker_url):
    settings = Settings(mqtt_url=broker_url)
    gateway = Gateway(
        client_id="OP:S",
        username="OP",
        will=Will(topic="cw/v1/OP/S/status", payload=b'{"online":false}'),
    )
    publisher = Publisher(broker_address(settings), gateway=gateway)

    def messages():
        yield Outgoing(topic="cw/v1/OP/S/registers", payload=b'{"seq":1}')
        yield Outgoing(topic="cw/v1/OP/S/registers", payload=b'{"seq":2}', due_s=600)

    async with Listener(broker_url) as listener:
        task = asyncio.create_task(publisher.publish_all(messages()))
        await listener.wait_for(1)
        # Cancelled in the middle, it closes the connection by its own will, without the last one.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        client = publisher._client()
        await client.__aenter__()
        client._client.socket().close()
        await listener.wait_for(2)
        client._client._sock_close()
    assert listener.got[-1] == ("cw/v1/OP/S/status", b'{"online":false}')


def test_messages_of_a_file_carry_text_payloads_as_they_stand(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_text('{"topic": "cw/v1/O/S/registers", "payload": "not { json"}\n')
    assert [message.payload for message in read_messages(file)] == [b"not { json"]
