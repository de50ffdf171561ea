"""`chargewatch simulate`: repeatable files, and a city straight to a real broker."""

import asyncio
import hashlib
import json

import pytest
from replay_case import Listener, sequences

from chargewatch.simulators.gateways import gateway_of, timed

SMALL = ("--set", "days=2", "--to", "2026-03-01T00:00:00+08:00")


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_same_seed_and_parameters_repeat_every_file(run_command, tmp_path):
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        result = run_command(
            "simulate", "mixed-faults", "--seed", seed, "--out", str(tmp_path / name), *SMALL
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout == ""
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != digests(tmp_path / "c")
    assert set(digests(tmp_path / "a")) == {"registry.json", "messages.jsonl", "truth.json"}


@pytest.mark.parametrize("gateways", ["own", "2"])
async def test_a_city_is_published_by_its_gateways_in_order(broker_url, run_command, gateways):
    arguments = ("simulate", "quiet-city", *SMALL, "--set", "stations=30", "--json")
    async with Listener(broker_url) as listener:
        result = await asyncio.to_thread(
            run_command,
            *arguments,
            *("--gateways", gateways),
            env={"CHARGEWATCH_MQTT_URL": broker_url},
        )
        assert result.returncode == 0, result.stderr
        count = json.loads(result.stdout)["published"]
        await listener.wait_for(count)
    assert len(listener.got) == count
    assert len(sequences(listener.got)) >= 3 * 30
    for seen in sequences(listener.got).values():
        assert seen == list(range(1, len(seen) + 1))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("no-such-city",), "quiet-city"),
        (("demo", "--set", "colour=1"), "no parameter colour"),
        (("demo", "--set", "colour"), "name=value"),
        (("demo", "--to", "2026-03-01T00:00:00"), "offset"),
        (("demo", "--speed", "fast"), "--speed"),
        (("real-sessions", "--set", "days=1"), "real-sessions"),
    ],
)
def test_what_can_t_be_simulated_is_named_in_one_line(run_command, arguments, named):
    result = run_command("simulate", *arguments, env={"CHARGEWATCH_MQTT_URL": "mqtt://127.0.0.1:1"})
    assert result.returncode == 1
    assert named in result.stderr
    assert result.stderr.count("\n") == 1


def test_messages_are_due_at_their_times_over_the_speed():
    rows = [(100.0, "cw/v1/O/S/status", b"{}"), (160.0, "cw/v1/O/S/registers", b"{}")]
    assert [m.due_s for m in timed(rows, speed=1.0)] == [0.0, 60.0]
    assert [m.due_s for m in timed(rows, speed=60.0)] == [0.0, 1.0]
    assert [m.due_s for m in timed(rows, speed=None)] == [0.0, 0.0]
    assert [m.retain for m in timed(rows, speed=None)] == [True, False]


def test_a_gateway_has_the_identity_and_will_of_the_contract():
    gateway = gateway_of("cw/v1/OP7/TJ00001/registers")
    assert (gateway.client_id, gateway.username) == ("OP7:TJ00001", "OP7")
    assert gateway.will.topic == "cw/v1/OP7/TJ00001/status"
    assert json.loads(gateway.will.payload) == {"online": False}
