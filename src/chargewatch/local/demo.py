"""The whole platform on one machine: engines, a simulated city, ingest, risk run, pages."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from chargewatch.domain.mpe import rule_set
from chargewatch.errors import EngineError
from chargewatch.local.engines import Engine, Engines, engines
from chargewatch.local.office import Office, add_people, inspector_rows, play_office
from chargewatch.local.processes import (
    LOCALHOST,
    ChildProcess,
    SystemUser,
    free_port,
    port_answers,
    port_is_free,
    temporary_folder,
)
from chargewatch.mqtt.address import BrokerAddress, broker_address
from chargewatch.settings import PREFIX, Settings
from chargewatch.simulators.city import City, make_city
from chargewatch.simulators.publisher import Outgoing, Published, Publisher
from chargewatch.storage.database import open_database
from chargewatch.storage.intake.totals import received_items, stored_items
from chargewatch.storage.migrate import migrate
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from chargewatch.supervision.registry import import_registry
from chargewatch.wire.registry_file import read_registry_file

SUPERVISOR = "supervisor"
IDLE_S = 3.0
"""Ingest has dealt with everything when nothing came for this long and nothing is missing, s."""
LOST_S = 60.0
"""What is missing is lost when nothing came for this long, s."""
ASSESS_EVERY_S = 300.0
"""Time between the risk runs of a live demo, s."""

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class DemoFinding:
    """One connector that is wrong or was flagged: the truth beside the finding."""

    connector: str
    true_error: float
    mpe: float
    relative_error: float | None
    standard_uncertainty: float | None
    tier: str
    true_signals: Sequence[str]
    found_signals: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What went in, what was found, and whether that is what had to be found."""

    stored: int
    published: int
    true_faults: int
    flagged: int
    false_flags: int
    seconds: float
    findings: Sequence[DemoFinding]
    missed: Sequence[str]
    engines: Mapping[str, Engine]
    office: Mapping[str, int] = field(default_factory=dict)  # what the simulated office did

    @property
    def lost(self) -> int:
        """How many published readings and sessions are not in the tables."""
        return self.published - self.stored

    @property
    def passed(self) -> bool:
        """Whether nothing was lost and every fault of at least 2 MPE is red."""
        return self.stored == self.published and not self.missed

    def as_json(self) -> dict[str, Any]:
        """Return what `chargewatch demo --once --json` prints."""
        return {
            "stored": self.stored,
            "published": self.published,
            "true_faults": self.true_faults,
            "flagged": self.flagged,
            "false_flags": self.false_flags,
            "seconds": round(self.seconds, 1),
            "lost": self.lost,
            "missed": list(self.missed),
            "office": dict(self.office),
            "engines": {name: asdict(engine) for name, engine in self.engines.items()},
        }


class Demo:
    """One run of the demo on engines that are up."""

    def __init__(
        self,
        settings: Settings,
        engines: Engines,
        *,
        city: City,
        folder: Path,
        say: Progress,
        progress: Progress,
    ) -> None:
        self.settings = replace(
            settings, database_url=engines.database_url, mqtt_url=engines.mqtt_url
        )
        self.engines = engines
        self.city = city
        self.folder = folder
        self.say = say
        self.progress = progress
        self.registry = city.registry()
        self.operators = [row["operator_id"] for row in self.registry["operators"]]
        self.registry["inspectors"] = inspector_rows(self.operators)
        self.station_ids = sorted({row["station_id"] for row in self.registry["stations"]})
        self.password = accounts.generate_password()
        self.port = settings.http_port
        self.taken: dict[str, Engine] = {"broker": engines.broker}

    @property
    def host(self) -> str:
        """The host by which the pages are reached from here."""
        wildcards = {"0.0.0.0": LOCALHOST, "::": "::1"}  # noqa: S104
        return wildcards.get(self.settings.http_host, self.settings.http_host)

    @property
    def address(self) -> str:
        """Where the pages are."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def environment(self) -> dict[str, str]:
        """Return the environment of the demo's own commands."""
        return {
            **os.environ,
            f"{PREFIX}DATABASE_URL": self.engines.database_url,
            f"{PREFIX}MQTT_URL": self.engines.mqtt_url,
            f"{PREFIX}HTTP_PORT": str(self.port),
            f"{PREFIX}BATCH_MS": str(self.engines.batch_ms),
            # The log tells when ingest is ready, whatever the user's settings are.
            f"{PREFIX}LOG_LEVEL": "info",
        }

    def child(self, *arguments: str) -> ChildProcess:
        """Return one of the platform's services as a child process, not yet started."""
        return ChildProcess(
            f"chargewatch {arguments[0]}",
            [sys.executable, "-m", "chargewatch", *arguments],
            log=self.folder / f"{arguments[0]}.log",
            account=SystemUser(os.geteuid(), os.getegid()),
            folder=self.folder,
            environment=self.environment(),
        )

    def command(self, *arguments: str) -> Any:
        """Run one of the platform's commands and return the JSON document it prints."""
        result = subprocess.run(
            [sys.executable, "-m", "chargewatch", *arguments],
            env=self.environment(),
            capture_output=True,
            timeout=600,
            check=False,
        )
        if result.returncode != 0:
            raise EngineError(
                f"`chargewatch {' '.join(arguments)}` failed: {result.stderr.decode().strip()}"
            )
        return orjson.loads(result.stdout)

    async def prepare(self) -> None:
        """Bring up the schema, the registry and the supervisor's account."""
        path = self.folder / "registry.json"
        path.write_bytes(orjson.dumps(self.registry))
        async with open_database(self.engines.database_url) as database:
            capabilities = database.capabilities
            found = f"{capabilities.engine} {self.engines.database_from}"
            self.taken["database"] = Engine(found=found, lost=capabilities.losses)
            for name, engine in self.taken.items():
                self.say(f"{name}: {engine.found}")
                if engine.lost:
                    self.say(f"  lost by it: {engine.lost}")
            await migrate(database)
            async with database.connect() as connection:
                already = await stored_items(connection, self.station_ids)
            if already:
                raise EngineError(
                    f"the database holds {already} readings of the demo's stations already: "
                    "give the demo an empty database (createdb) in CHARGEWATCH_DATABASE_URL"
                )
            await import_registry(
                database,
                read_registry_file(path),
                actor=Actor(name="demo"),
                rules=rule_set(self.settings.mpe_rules),
            )
            role = Role.SUPERVISOR
            await accounts.add_user(
                database, SUPERVISOR, role=role, password=self.password, actor=Actor(name="demo")
            )
            await add_people(database, self.operators, password=self.password)

    def ingest_ready(self) -> bool:
        """Whether ingest has its session at the broker, by its log."""
        return b"subscribed" in (self.folder / "ingest.log").read_bytes()

    def worker_ready(self) -> bool:
        """Whether the worker has done a job, by its log."""
        return b"job_done" in (self.folder / "work.log").read_bytes()

    async def publish_history(self, ingest: ChildProcess) -> None:
        """Publish the city's history and return when ingest has dealt with all of it.

        Raises: EngineError with the end of its log when ingest ends meanwhile.
        """
        progress = Published()
        publisher = Publisher(self.simulator_address(), progress=progress)
        history = (
            Outgoing(topic=topic, payload=payload) for topic, payload in self.city.messages()
        )
        async with asyncio.TaskGroup() as group:
            work = group.create_task(publisher.publish_all(history))
            await self._until_taken_in(work, progress, ingest)

    async def _until_taken_in(
        self, work: asyncio.Task[None], progress: Published, ingest: ChildProcess
    ) -> None:
        """Return when all is published and stored, or nothing has come for long: it is lost."""
        last, changed_at = -1, time.monotonic()
        async with open_database(self.engines.database_url) as database:
            while True:
                if ingest.pid is None:
                    raise EngineError(f"{ingest.name} has ended; {ingest.log_end()}")
                idle_s = time.monotonic() - changed_at
                async with database.connect() as connection:
                    received = await received_items(connection, self.station_ids)
                    if work.done() and received == last and idle_s >= IDLE_S:
                        stored = await stored_items(connection, self.station_ids)
                        if stored >= self.published() or idle_s >= LOST_S:
                            return
                if received != last:
                    last, changed_at = received, time.monotonic()
                    self.progress(
                        f"history: {progress.messages:,} messages published, "
                        f"{received:,} readings and sessions taken in"
                    )
                await asyncio.sleep(0.5)

    def published(self) -> int:
        """Return how many different readings and sessions the history has."""
        messages = self.city.truth()["messages"]
        return int(messages["distinct_readings"] + messages["sessions"])

    def simulator_address(self) -> BrokerAddress:
        """Return the broker's address for who speaks for all gateways."""
        return broker_address(replace(self.settings, mqtt_url=self.engines.simulator_mqtt_url))

    def assess(self) -> Mapping[str, Any]:
        """Make one risk run as of the end of the history."""
        summary: Mapping[str, Any] = self.command(
            "assess", "--json", "--as-of", self.city.truth()["to"]
        )
        return summary

    async def outcome(self, *, started: float) -> Outcome:
        """Compare what the run found with what the city is made of."""
        async with (
            open_database(self.engines.database_url) as database,
            database.connect() as connection,
        ):
            stored = await stored_items(connection, self.station_ids)
        truth = self.city.truth()
        rows = self.command("assessments", "export", "--format", "json")
        signals = self.command("signals", "export", "--format", "json")
        found = {row["connector"]: row for row in rows}
        findings = _findings(truth, found, signals)
        bad = [finding for finding in findings if abs(finding.true_error) > finding.mpe]
        red = [finding for finding in findings if finding.tier == "red"]
        return Outcome(
            stored=stored,
            published=self.published(),
            true_faults=len(bad),
            flagged=len(red),
            false_flags=sum(abs(finding.true_error) <= finding.mpe for finding in red),
            seconds=time.monotonic() - started,
            findings=findings,
            engines=self.taken,
            missed=[
                finding.connector
                for finding in bad
                if abs(finding.true_error) >= 2 * finding.mpe and finding.tier != "red"
            ],
        )

    async def work_in_the_office(self, outcome: Outcome) -> Mapping[str, int]:
        """Let a simulated office work on what was found; return how much it did."""
        registered = {row["connector"]: row for row in self.registry["connectors"]}
        stations = {row["station_id"]: row["operator_id"] for row in self.registry["stations"]}
        truth = self.city.truth()["connectors"]
        red = [
            finding
            for finding in outcome.findings
            if finding.tier == "red" and finding.connector in registered
        ]
        red.sort(key=lambda finding: -abs(finding.true_error) / finding.mpe)
        async with open_database(self.engines.database_url) as database:
            office = Office(
                database=database,
                settings=self.settings,
                supervisor=SUPERVISOR,
                errors={row["connector"]: row["relative_error"] for row in truth},
                now=datetime.now(UTC),
                places={
                    name: (row["station_id"], stations[row["station_id"]])
                    for name, row in registered.items()
                },
            )
            return await play_office(
                office,
                red=[finding.connector for finding in red],
                silent=[
                    row["connector"]
                    for row in truth
                    if "silence" in row.get("signals", []) and row["connector"] in registered
                ],
                operators=self.operators,
            )

    def check_pages(self) -> None:
        """Ask the server for its health, as a load balancer would."""
        # Never through a proxy of the environment: it can't reach this machine's own address.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.address}api/v1/health", timeout=30) as answer:
            if answer.status != 200:
                raise EngineError(f"{self.address} answers with status {answer.status}")

    async def live(self) -> None:
        """Go on publishing in real time and assess every few minutes, until cancelled."""
        publisher = Publisher(self.simulator_address(), patience_s=3600)
        async with asyncio.TaskGroup() as group:
            group.create_task(publisher.publish_all(self.live_messages()))
            while True:
                await asyncio.sleep(ASSESS_EVERY_S)
                now = datetime.now(UTC).isoformat()
                run = await asyncio.to_thread(self.command, "assess", "--json", "--as-of", now)
                self.say(f"risk run {run['run_id']} as of {now[:16]} UTC is done")

    def live_messages(self) -> Iterator[Outgoing]:
        """Yield the messages after the history, each due at its own time."""
        started = time.time()
        for due_at_s, topic, payload in self.city.live():
            yield Outgoing(topic=topic, payload=payload, due_s=max(0.0, due_at_s - started))


def _findings(
    truth: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Any]],
    signals: Sequence[Mapping[str, Any]],
) -> list[DemoFinding]:
    raised: dict[str, set[str]] = {}
    for signal in signals:
        if signal["connector"]:
            raised.setdefault(signal["connector"], set()).add(signal["code"])
    return [
        DemoFinding(
            connector=row["connector"],
            true_error=row["relative_error"],
            # Nobody knows the class of an unregistered connector but its simulator.
            mpe=found[row["connector"]]["mpe"] or row["mpe"],
            relative_error=found[row["connector"]]["relative_error"],
            standard_uncertainty=found[row["connector"]]["standard_uncertainty"],
            tier=found[row["connector"]]["tier"],
            true_signals=sorted(row.get("signals", [])),
            found_signals=sorted(raised.get(row["connector"], set())),
        )
        for row in truth["connectors"]
        if row["connector"] in found
    ]


def demo_end() -> datetime:
    """Return the end of the demo's history: the last full quarter of an hour."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    return now - timedelta(minutes=now.minute % 15)


def pages_port(settings: Settings, *, once: bool, say: Progress) -> int:
    """Return the port of the demo's pages: the one of the settings, else a free one.

    Raises: EngineError when the port that was asked for is taken.
    """
    if once or settings.http_port == 0:
        return free_port()
    if port_is_free(settings.http_port):
        return settings.http_port
    if settings.sources.get("http_port", "default") != "default":
        raise EngineError(
            f"port {settings.http_port} of {LOCALHOST} is taken by another program: set "
            "CHARGEWATCH_HTTP_PORT to another one, or to 0 for any free one"
        )
    port = free_port()
    say(f"port {settings.http_port} is taken: the pages will be on port {port}")
    return port


@contextmanager
def demo_folder(settings: Settings) -> Iterator[Path]:
    """Yield a fresh folder for the demo's engines and logs, deleted afterwards."""
    if settings.data_folder:
        folder = Path(settings.data_folder)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with temporary_folder("chargewatch-demo-") as folder:
        yield folder


async def run_demo(
    settings: Settings,
    *,
    seed: int,
    scenario: str,
    overrides: Mapping[str, Any],
    once: bool,
    say: Progress,
    progress: Progress,
    show: Callable[[Demo, Outcome], None],
) -> Outcome:
    """Run the demo to its outcome; without `once`, go on live until cancelled.

    Raises: EngineError that names the part that failed and where its log is.
    """
    started = time.monotonic()
    settings = replace(settings, http_port=pages_port(settings, once=once, say=say))
    progress("laying out the city and starting the engines")
    city = await asyncio.to_thread(make_city, scenario, seed=seed, to=demo_end(), **overrides)
    operators = [row["operator_id"] for row in city.registry()["operators"]]
    with (
        demo_folder(settings) as folder,
        engines(settings, folder, operators=operators, say=say) as where,
    ):
        demo = Demo(settings, where, city=city, folder=folder, say=say, progress=progress)
        say("engines are up; bringing up the schema and the registry")
        await demo.prepare()
        with ExitStack() as services:
            ingest = services.enter_context(demo.child("ingest"))
            ingest.start(demo.ingest_ready)
            await demo.publish_history(ingest)
            say("history is taken in; estimating every connector's error")
            progress("one risk run over the history")
            await asyncio.to_thread(demo.assess)
            outcome = await demo.outcome(started=started)
            progress("a simulated office works on it")
            outcome = replace(outcome, office=await demo.work_in_the_office(outcome))
            say(
                "a simulated office has {cases} cases, {complaints} complaints and a draw of "
                "{drawn} piles with its results".format_map(outcome.office)
            )
            services.enter_context(demo.child("work")).start(demo.worker_ready)
            serve = services.enter_context(demo.child("serve"))
            serve.start(lambda: port_answers(demo.port, host=demo.host))
            if outcome.lost:
                say(ingest.log_end())
            await asyncio.to_thread(demo.check_pages)
            show(demo, outcome)
            if not once:
                await demo.live()
            return outcome
