"""A month of supervision, played by the real commands and pages: from a flag to a proof.

A city with two cheating piles is simulated, taken in and assessed. Then people work on it over
HTTP and the command line only; at the end one byte of one old row of the audit trail is changed
behind its back.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import text

from chargewatch.local.processes import free_port
from chargewatch.storage.database import open_database
from chargewatch.supervision.audit import new_keys
from running import RunCommand

ZONE = ZoneInfo("Asia/Shanghai")
PASSWORD = "correct-horse-battery"
TOKEN_FIELD = re.compile(r'name="form_token" value="([0-9a-f]+)"')
MARK_FIELD = re.compile(r'name="mark" value="([^"]+)"')
CITY = (
    "--set", "stations=2", "--set", "connectors_per_station=8", "--set", "days=30",
    "--set", 'faults=[{fault="gain", count=2, magnitude_mpe=3.0}]',
)  # fmt: skip

Platform = Callable[..., str]


@pytest.fixture
def platform(
    database_url: str, broker_url: str, run_command: RunCommand, tmp_path: Path
) -> Platform:
    """Run a command of the platform and return its stdout; it must not fail."""
    environment = {
        "CHARGEWATCH_DATABASE_URL": database_url,
        "CHARGEWATCH_MQTT_URL": broker_url,
        "CHARGEWATCH_AUDIT_KEY": new_keys("test/month").secret(),
    }

    def run(*arguments: str, status: int = 0, stdin: str | None = None) -> str:
        done = run_command(*arguments, env=environment, timeout=300, stdin=stdin)
        assert done.returncode == status, f"{arguments}: {done.stderr}"
        return done.stdout if status == 0 else done.stdout + done.stderr

    run.environment = environment  # type: ignore[attr-defined]
    return run


def take_in(platform: Platform, folder: Path) -> dict[str, Any]:
    """Simulate the city, register it, and take its telemetry in; return the truth."""
    platform("simulate", "quiet-city", *CITY, "--seed", "3", "--out", str(folder))
    registry = json.loads((folder / "registry.json").read_text())
    registry["inspectors"] = [
        {"name": name, "username": name, "recused_operators": []} for name in ("wang", "li")
    ]
    (folder / "registry.json").write_text(json.dumps(registry))
    platform("registry", "import", str(folder / "registry.json"))
    platform("ingest", "--until-idle", "1")  # makes the session that keeps messages
    environment = {**os.environ, **platform.environment}  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "chargewatch", "replay", str(folder / "messages.jsonl")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as replay:
        platform("ingest", "--until-idle", "5")
        assert replay.wait(120) == 0
    truth: dict[str, Any] = json.loads((folder / "truth.json").read_text())
    return truth


@contextmanager
def serving(platform: Platform) -> Iterator[str]:
    port = free_port()
    environment = {**os.environ, **platform.environment}  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "chargewatch", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    httpx.get(f"{address}/api/v1/health").raise_for_status()
                    break
                except httpx.HTTPError:
                    assert process.poll() is None
                    time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait(30)


class Person:
    """Somebody with a browser and a token."""

    def __init__(self, address: str, name: str) -> None:
        self.browser = httpx.Client(base_url=address, timeout=60, follow_redirects=True)
        page = self.browser.get("/login").text
        answer = self.browser.post(
            "/login",
            data={"username": name, "password": PASSWORD, "next": "/signals", **token(page)},
        )
        assert answer.status_code == 200, answer.text
        login = self.browser.post(
            "/api/v1/login", json={"username": name, "password": PASSWORD}
        ).json()
        self.header = {"authorization": f"Bearer {login['token']}"}

    def page(self, path: str) -> str:
        """Return a page that must be there."""
        answer = self.browser.get(path)
        assert answer.status_code == 200, f"{path}: {answer.text[:500]}"
        return answer.text

    def send(self, path: str, form_on: str, **fields: str) -> httpx.Response:
        """Send a form that stands on a page."""
        answer = self.browser.post(path, data={**fields, **token(self.page(form_on))})
        assert answer.status_code == 200, f"{path}: {answer.text[:1000]}"
        return answer

    def get(self, path: str) -> Any:
        """Ask the API."""
        answer = self.browser.get(f"/api/v1{path}", headers=self.header)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return answer.json()

    def post(self, path: str, status: int = 204, **body: Any) -> Any:
        """Tell the API something."""
        answer = self.browser.post(f"/api/v1{path}", headers=self.header, json=body)
        assert answer.status_code == status, f"{path}: {answer.text}"
        return answer.json() if answer.content else None


def token(page: str) -> dict[str, str]:
    found = TOKEN_FIELD.search(page)
    assert found is not None
    return {"form_token": found[1]}


def verification(connector: str, error: float, **links: Any) -> dict[str, Any]:
    """Return what an inspector measured at a pile that errs so much."""
    loads = [
        {
            "load": load,
            "power_w": power_w,
            "repetitions": [
                {"indicated_wh": 5000 * (1 + error) + step, "reference_wh": 5000}
                for step in (0.0, 1.0, 2.0)
            ],
        }
        for load, power_w in (("full", 6600), ("half", 3300))
    ]
    return {
        "connector": connector, "verified_on": datetime.now(ZONE).date().isoformat(),
        "kind": "inspection", "loads": loads, "certificate": f"C-{connector}",
        "reference": {"name": "reference 7", "expanded_uncertainty": 0.001}, **links,
    }  # fmt: skip


def test_a_month_from_flags_to_a_proof(
    platform: Platform, database_url: str, tmp_path: Path
) -> None:
    platform("migrate")
    truth = take_in(platform, tmp_path)
    errors = {row["connector"]: row["relative_error"] for row in truth["connectors"]}
    cheats = sorted(name for name, error in errors.items() if error > 0.04)
    assert len(cheats) == 2
    operators = {}
    for row in json.loads((tmp_path / "registry.json").read_text())["stations"]:
        operators[row["station_id"]] = row["operator_id"]
    people = [("zhao", "supervisor"), ("wu", "supervisor"), ("wang", "inspector")]
    people += [("li", "inspector"), ("root", "administrator")]
    for name, role in people:
        platform("user", "add", name, "--role", role, "--password-stdin", stdin=PASSWORD)

    # Flags appear.
    platform("assess", "--as-of", truth["to"])
    rows = json.loads(platform("assessments", "export"))
    assert sorted(row["connector"] for row in rows if row["tier"] == "red") == cheats
    cheat = cheats[0]
    [operator] = {row["operator_id"] for row in rows if row["connector"] == cheat}
    command = ("user", "add", "op", "--role", "operator", "--operator", operator)
    platform(*command, "--password-stdin", stdin=PASSWORD)
    month = f"{datetime.now(ZONE):%Y-%m}"
    before = drafted(platform, month, operator)

    with serving(platform) as address, ExitStack() as stack:
        zhao, wu, wang, op = (Person(address, name) for name in ("zhao", "wu", "wang", "op"))
        for person in (zhao, wu, wang, op):
            stack.callback(person.browser.close)

        # A driver complains; the complaint becomes part of the case.
        complain(address, cheat)
        assert cheat in zhao.page("/complaints")

        # A case is opened on the page of the pile, given to an inspector, told to the operator.
        opened = zhao.send(
            "/cases", f"/piles/{cheat}", connector=cheat, origin="flag",
            title="errs three times beyond its MPE",
        )  # fmt: skip
        number = str(opened.url).rpartition("/")[2]
        zhao.post(f"/cases/{number}/steps", 200, step="assign", owner="wang")
        assert "wang" in zhao.page(f"/cases/{number}")
        wang.post(f"/cases/{number}/steps", 200, step="ask", why="Which work was done there?")
        op.post(f"/cases/{number}/reply", 200, text="None that we know of.")

        # A draw is made, and verified by a stranger without a database.
        platform("draw", "freeze", "2026-test", "--size", "6", "--uniform", "0.5", "--crew", "1")
        zhao.post("/draws/2026-test/publish", without_timestamp=True)
        published = httpx.get(f"{address}/api/v1/public/draws/2026-test").json()
        zhao.post("/draws/2026-test/throws", witness="Zhao", digits="3141592653")
        wu.post("/draws/2026-test/throws", witness="Wu", digits="2718281828")
        zhao.post("/draws/2026-test/run")
        file = tmp_path / "draw.json"
        platform("draw", "export", "2026-test", "--out", str(file))
        told = verify_draw_offline(file, published["draw"]["list_sha256"])
        assert told.returncode == 0, told.stdout + told.stderr
        bundle = json.loads(file.read_text())
        assert len(bundle["drawn"]) == 6

        # Inspectors enter results: of the draw, and of the case.
        planned = inspections(zhao, "2026-test")
        assert len(planned) == 6
        for row in planned:
            wang.post(
                "/verifications", 200,
                **verification(
                    row["connector"], errors[row["connector"]], inspection_id=row["inspection_id"]
                ),
            )  # fmt: skip
        drawn = {row["connector"] for row in planned}
        wang.post(f"/cases/{number}/steps", 200, step="inspect")
        due_on = datetime.now(ZONE).date().isoformat()
        visit = zhao.post("/inspections", 200, case=number, inspectors=["wang"], due_on=due_on)
        measured = verification(cheat, errors[cheat], inspection_id=visit["inspection_id"])
        measured["certificate"] += "-case"
        assert wang.post("/verifications", 200, **measured)["result"] == "fail"
        results = inspections(zhao, "2026-test")
        assert {row["connector"]: row["result"] for row in results} == {
            name: "fail" if name in cheats else "pass" for name in drawn
        }

        # The case closes, the operator objects, and it closes again.
        close = {"step": "close", "outcome": "confirmed", "why": "It told 6 % too much."}
        zhao.post(f"/cases/{number}/steps", 200, **close)
        op.post(f"/cases/{number}/objection", 200, text="We ask for a second look.")
        assert zhao.get(f"/cases/{number}")["case"]["state"] == "assigned"
        zhao.post(f"/cases/{number}/steps", 200, **close)
        assert zhao.get(f"/cases/{number}")["case"]["outcome"] == "confirmed"
        assert "6 %" in op.page(f"/cases/{number}")

        # The public reads what came of it.
        zhao.post("/draws/2026-test/open")
        assert httpx.get(f"{address}/published/draws/2026-test").status_code == 200
        public = httpx.get(f"{address}/p/{cheat}")
        assert public.status_code == 200

    # The money owed is told, and is what the truth makes it.
    money = json.loads(platform("money", "export", "--format", "json"))
    owed = sum(row["overcharge_cny"] for row in money if row["connector"] == cheat)
    wanted = truly_owed(tmp_path, cheat, errors[cheat])
    low = sum(row["overcharge_low_cny"] for row in money if row["connector"] == cheat)
    high = sum(row["overcharge_high_cny"] for row in money if row["connector"] == cheat)
    assert low <= wanted <= high, (low, owed, wanted, high)
    assert owed == pytest.approx(wanted, rel=0.25)

    # The credit grade moves: confirmed overcharging and failed inspections cost points.
    after = drafted(platform, month, operator)
    assert after < before

    # The flag's outcome is counted.
    figures = json.loads(platform("outcomes", "show", "--json"))
    hits = figures["precision"]["all"]
    assert hits["hits"] == hits["of"] >= 1

    # The audit trail verifies, in the database and as it was published.
    export = tmp_path / "trail"
    platform("audit", "checkpoint", "--export", str(export))
    verified = json.loads(platform("audit", "verify", "--json"))
    assert verified["fault"] == ""
    assert verified["entries"] > 30
    assert json.loads(platform("audit", "verify", str(export), "--json"))["fault"] == ""

    # One byte of one old row, behind its back.
    number_of = asyncio.run(change_one_byte(database_url))
    told_fault = platform("audit", "verify", status=1)
    assert f"entry {number_of} was changed" in told_fault


def inspections(person: Person, draw_id: str) -> list[dict[str, Any]]:
    """Return the inspections of a draw."""
    found = person.get("/inspections?limit=100")["inspections"]
    return [row for row in found if row["draw_id"] == draw_id]


def drafted(platform: Platform, month: str, operator: str) -> float:
    """Return the score of an operator in the running month."""
    platform("credit", "grade", "--month", month)
    told = json.loads(platform("credit", "show", operator, "--draft", "--json"))
    return float(told["score"])


def complain(address: str, connector: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as browser:
        form = browser.get(f"/p/{connector}/complain").text
        mark = MARK_FIELD.search(form)
        assert mark is not None
        time.sleep(6)  # nobody writes faster
        sent = browser.post(
            f"/p/{connector}/complain",
            data={"mark": mark[1], "kind": "energy", "text": "31 kWh told, 28 taken by my car"},
        )
        assert sent.status_code == 200, sent.text


def verify_draw_offline(file: Path, published_hash: str) -> subprocess.CompletedProcess[str]:
    """Verify a draw as a stranger does: the command, no database, no settings."""
    command = [sys.executable, "-m", "chargewatch", "draw", "verify", str(file)]
    command += ["--published-hash", published_hash]
    plain = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, env=plain, capture_output=True, text=True, timeout=60, check=False
    )


def truly_owed(folder: Path, connector: str, error: float) -> float:
    """Return what drivers of a connector paid for energy that it did not deliver."""
    paid = 0.0
    with (folder / "messages.jsonl").open() as lines:
        for line in lines:
            message = json.loads(line)
            for session in message["payload"].get("sessions", ()):
                if session["connector"] == connector:
                    paid += float(session["energy_fee"]) + float(session.get("service_fee", 0))
    return paid * error / (1 + error)


async def change_one_byte(url: str) -> int:
    """Change one letter of one old entry, as the owner of the tables can; return its number."""
    async with open_database(url) as database, database.begin() as connection:
        await connection.execute(text("ALTER TABLE audit_entry DISABLE TRIGGER USER"))
        number = 7
        content = str(
            await connection.scalar(
                text("SELECT content FROM audit_entry WHERE entry = :entry"), {"entry": number}
            )
        )
        place = content.index('"at":"20') + 8
        changed = content[:place] + ("3" if content[place] != "3" else "4") + content[place + 1 :]
        assert len(changed) == len(content)
        await connection.execute(
            text("UPDATE audit_entry SET content = :content WHERE entry = :entry"),
            {"content": changed, "entry": number},
        )
        await connection.execute(text("ALTER TABLE audit_entry ENABLE TRIGGER USER"))
    return number
