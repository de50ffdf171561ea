"""The whole road on telemetry that is made here, by hand, from the contract alone."""

import asyncio
import csv
import io
import json
import random
import sys
from datetime import UTC, datetime, timedelta

import pytest
from aiomqtt import Client, ProtocolVersion

START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=15)
DAYS = 12
STATION = "HAND01"
ERRORS = {"HAND01-1": 0.06, "HAND01-2": 0.0, "HAND01-3": -0.005, "HAND01-4": 0.004}
PRICE = 0.8
LOSS_RATIO = {"HAND01-4": 1.05}


def registry():
    return {
        "version": 1,
        "operators": [{"operator_id": "HAND", "name": "made by hand"}],
        "stations": [
            {"station_id": STATION, "operator_id": "HAND", "name": "Hand", "district": "120104"}
        ],
        "connectors": [
            {
                "connector": name,
                "pile": name,
                "station_id": STATION,
                "current": "AC",
                "accuracy_class": "2",
                "rated_power_w": 7000,
                "min_current_a": 0.5,
                "max_current_a": 32,
                "model": "AC7",
                "resolution_wh": 1,
                "cable_loss_compensated": True,
            }
            for name in ERRORS
        ],
        "reference_meters": [
            {
                "meter": "HAND01-M",
                "station_id": STATION,
                "scope": "station",
                "connectors": [],
                "current": "AC",
                "relative_uncertainty": 0.002,
                "coverage_factor": 2,
                "resolution_wh": 1,
                "certificate": "c",
                "calibrated_on": START.date().isoformat(),
                "valid_until": (START + timedelta(days=400)).date().isoformat(),
            }
        ],
        "verifications": [
            {
                "connector": name,
                "verified_on": (START - timedelta(days=300)).date().isoformat(),
                "valid_until": (START + timedelta(days=700)).date().isoformat(),
                "result": "pass",
                "certificate": name,
            }
            for name in ERRORS
        ],
        "tariffs": [],
    }


class Station:
    """Four chargers with known errors behind one feeder meter with 120 W of auxiliaries."""

    def __init__(self):
        self.random = random.Random(5)
        self.true = dict.fromkeys(ERRORS, 0.0)
        self.offset = dict.fromkeys(ERRORS, 1000.0)
        self.feeder = 5000.0
        self.charging = {}
        self.sessions = []
        self.readings = []
        self.reference = []

    def register(self, name):
        return round(self.offset[name] + self.true[name] * (1 + ERRORS[name]))

    def read(self, name, at, context="Sample.Periodic"):
        session = self.charging.get(name)
        self.readings.append(
            {
                "connector": name,
                "at": at.isoformat(),
                "energy_wh": self.register(name),
                # The display and the register come from the same meter.
                "power_w": session["power"] * (1 + ERRORS[name]) if session else 0.0,
                "context": context,
            }
            | ({"session": session["session"]} if session else {})
        )

    def begin(self, name, at):
        number = len(self.sessions) + len(self.charging) + self.random.randrange(10**9)
        self.charging[name] = {
            "session": f"S-{number}",
            "start": at,
            "start_wh": self.register(name),
            "power": self.random.choice([3500.0, 5200.0, 6600.0]),
            "until": at + timedelta(minutes=5 * self.random.randrange(12, 60)),
        }
        self.read(name, at, "Transaction.Begin")

    def end(self, name, at):
        self.read(name, at, "Transaction.End")
        session = self.charging.pop(name)
        energy = self.register(name) - session["start_wh"]
        billed = round(energy * LOSS_RATIO.get(name, 1.0))
        fee = f"{billed / 1000 * PRICE:.2f}"
        self.sessions.append(
            {
                "session": session["session"],
                "connector": name,
                "started_at": session["start"].isoformat(),
                "ended_at": at.isoformat(),
                "start_wh": session["start_wh"],
                "stop_wh": self.register(name),
                "billed_wh": billed,
                "currency": "CNY",
                "energy_fee": fee,
                "service_fee": "0.00",
                "total_fee": fee,
            }
        )

    def run(self):
        at = START
        step = timedelta(minutes=5)
        while at < START + timedelta(days=DAYS):
            for name in ERRORS:
                if name in self.charging and at >= self.charging[name]["until"]:
                    self.end(name, at)
                elif name not in self.charging and self.random.random() < 0.03:
                    self.begin(name, at)
                elif name in self.charging or at.minute % 15 == 0:
                    self.read(name, at)
            if at.minute % 15 == 0:
                self.reference.append(
                    {
                        "meter": "HAND01-M",
                        "at": at.isoformat(),
                        "energy_wh": round(self.feeder),
                    }
                )
            for name, session in self.charging.items():
                energy = session["power"] * step.total_seconds() / 3600
                self.true[name] += energy
                self.feeder += energy
            self.feeder += 120 * step.total_seconds() / 3600
            at += step
        for name in list(self.charging):
            self.end(name, at)
        return self

    def messages(self):
        for kind, key, items in (
            ("registers", "readings", self.readings),
            ("reference", "readings", self.reference),
            ("sessions", "sessions", self.sessions),
        ):
            for seq, first in enumerate(range(0, len(items), 200), start=1):
                part = items[first : first + 200]
                sent_at = part[-1].get("at") or part[-1]["ended_at"]
                yield (
                    f"cw/v1/HAND/{STATION}/{kind}",
                    {"seq": seq, "sent_at": sent_at, key: part},
                )


@pytest.fixture
def platform(any_database_url, broker_url, run_command, tmp_path):
    environment = {"CHARGEWATCH_DATABASE_URL": any_database_url, "CHARGEWATCH_MQTT_URL": broker_url}

    def run(*arguments):
        result = run_command(*arguments, env=environment, timeout=120)
        assert result.returncode == 0, result.stderr
        return result.stdout

    path = tmp_path / "registry.json"
    path.write_text(json.dumps(registry()))
    run("registry", "import", str(path))
    return run


async def collect_receipts(url, count):
    host, port = url.removeprefix("mqtt://").split(":")
    receipts = []
    async with Client(
        host, int(port), protocol=ProtocolVersion.V5, identifier="listener"
    ) as client:
        await client.subscribe("cw/v1/HAND/+/receipt", qos=1)
        yield None
        async for message in client.messages:
            receipts += json.loads(message.payload)["receipts"]
            if len(receipts) >= count:
                yield receipts
                return


async def test_hand_made_station_from_broker_to_export(platform, broker_url, tmp_path):
    station = Station().run()
    messages = list(station.messages())
    file = tmp_path / "messages.jsonl"
    file.write_text(
        "".join(json.dumps({"topic": topic, "payload": body}) + "\n" for topic, body in messages)
    )
    platform("ingest", "--until-idle", "1")
    listening = collect_receipts(broker_url, len(messages))
    await anext(listening)
    replay = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "chargewatch", "replay", str(file)),
        env={"CHARGEWATCH_MQTT_URL": broker_url, "PATH": "/usr/bin:/bin"},
    )
    await asyncio.to_thread(platform, "ingest", "--until-idle", "3")
    assert await asyncio.wait_for(replay.wait(), 30) == 0
    receipts = await anext(listening)
    await listening.aclose()

    published = len(station.readings) + len(station.reference) + len(station.sessions)
    assert sum(receipt["stored"] for receipt in receipts) == published
    assert sum(receipt["duplicate"] + receipt["rejected"] for receipt in receipts) == 0

    as_of = (START + timedelta(days=DAYS)).isoformat()
    platform("assess", "--as-of", as_of)
    rows = json.loads(platform("assessments", "export", "--format", "json"))
    found = {row["connector"]: row for row in rows}
    assert set(found) == set(ERRORS)
    for name, error in ERRORS.items():
        row = found[name]
        deviation = row["relative_error"] - error
        assert abs(deviation) < 4 * row["standard_uncertainty"], (name, row)
        assert 0 < row["standard_uncertainty"] < 0.02
        assert row["mpe"] == 0.02
    assert (found["HAND01-1"]["verdict"], found["HAND01-1"]["tier"]) == ("nonconforming", "red")
    assert found["HAND01-2"]["verdict"] == "conforming"

    signals = json.loads(platform("signals", "export", "--format", "json"))
    assert {(row["code"], row["connector"]) for row in signals} == {
        ("loss_adjusted_billing", "HAND01-4"),
    }
    assert found["HAND01-4"]["tier"] == "orange"
    header = next(csv.reader(io.StringIO(platform("signals", "export", "--format", "csv"))))
    assert header == [
        "code", "severity", "connector", "station_id", "operator_id", "first_at", "last_at",
        "count", "value", "limit", "detail",
    ]  # fmt: skip


def test_two_runs_of_the_same_moment_are_equal_to_the_bit(platform):
    as_of = (START + timedelta(days=1)).isoformat()
    digests = [json.loads(platform("assess", "--as-of", as_of, "--json")) for _ in range(2)]
    assert digests[0]["result_digest"] == digests[1]["result_digest"]
    assert digests[0]["run_id"] != digests[1]["run_id"]
    row = json.loads(platform("assessments", "export"))[0]
    assert (row["verdict"], row["tier"], row["relative_error"]) == (
        "not_identifiable",
        "grey",
        None,
    )
