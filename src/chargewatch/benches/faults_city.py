"""The city of `chargewatch bench faults`: stations that write down what they send, and gateways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chargewatch.benches.faults_site import CITY_OPERATOR, Site, Supervised
from chargewatch.gateway.intake import FileInput
from chargewatch.gateway.service import GatewayOptions, GatewayService
from chargewatch.gateway.spool import Spool, copy_spool, look_into_spool
from chargewatch.mqtt.address import BrokerAddress, broker_address
from chargewatch.settings import Settings

STATION_CONNECTORS = 4
TICK_S = 0.5
RESEND_S = 5.0
GATEWAY_KEEPALIVE_S = 3
RECONNECT_MAX_S = 1.0
SPOOL_MB = 256
ABRUPT_END_S = 10.0


@dataclass
class FaultStation:
    """Makes readings, sessions and events and writes each down, as the record of the truth."""

    station_id: str
    path: Path
    chance: random.Random
    clock_s: float = 0.0
    """By how much this station's clock is wrong."""
    _energy: Counter[str] = field(default_factory=Counter)
    _used: set[tuple[str, int]] = field(default_factory=set)
    _sessions: int = 0
    _events: int = 0

    def now(self) -> datetime:
        """Return what the station's clock says."""
        return datetime.now(UTC) + timedelta(seconds=self.clock_s)

    def write(self) -> None:
        """Append one tick's lines: on disk before any gateway sees them."""
        lines = [
            self._reading("connector", f"{self.station_id}-{n}") for n in range(STATION_CONNECTORS)
        ]
        if self.chance.random() < 0.2:
            lines.append(self._reading("meter", f"{self.station_id}-M"))
        if self.chance.random() < 0.03:
            lines.append(self._session())
        if self.chance.random() < 0.01:
            lines.append(self._event())
        if self.chance.random() < 0.05:
            lines.append(lines[0])  # said twice
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    def _reading(self, what: str, name: str) -> dict[str, object]:
        at = self.now()
        # A clock that jumps back must not give one instant two values.
        while (key := (name, int(at.timestamp() * 1000))) in self._used:
            at += timedelta(milliseconds=1)
        self._used.add(key)
        self._energy[name] += self.chance.randrange(1, 60)
        return {
            what: name,
            "at": at.isoformat(timespec="milliseconds"),
            "energy_wh": self._energy[name],
        }

    def _session(self) -> dict[str, object]:
        self._sessions += 1
        name = f"{self.station_id}-{self.chance.randrange(STATION_CONNECTORS)}"
        stop = self._energy[name]
        return {
            "session": f"S-{self.station_id}-{self._sessions}",
            "connector": name,
            "started_at": (self.now() - timedelta(minutes=30)).isoformat(timespec="milliseconds"),
            "ended_at": self.now().isoformat(timespec="milliseconds"),
            "start_wh": max(0, stop - 1000),
            "stop_wh": stop,
            "billed_wh": stop - max(0, stop - 1000),
        }

    def _event(self) -> dict[str, object]:
        self._events += 1
        return {
            "connector": f"{self.station_id}-{self.chance.randrange(STATION_CONNECTORS)}",
            "at": self.now().isoformat(timespec="milliseconds"),
            "kind": "seal_opened",
            "detail": f"E-{self.station_id}-{self._events}",
        }

    def forget_old(self) -> None:
        """Keep the memory of used instants small; clocks don't jump back further."""
        oldest = (datetime.now(UTC) - timedelta(hours=3)).timestamp() * 1000
        self._used = {key for key in self._used if key[1] > oldest}


class OwnGateway:
    """A gateway in this process: the same code as the command, ended without warning."""

    def __init__(self, station: FaultStation, spool: Path, address: BrokerAddress) -> None:
        self.station, self.spool_path, self._address = station, spool, address
        self._task: asyncio.Task[None] | None = None
        self._service: GatewayService | None = None
        self.totals: Counter[str] = Counter()

    def start(self) -> None:
        """Start it."""
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        spool = open_spool(self.spool_path, self.station)
        try:
            position = spool.position(str(self.station.path))
            source = FileInput(self.station.path, position=position, follow=True)
            self._service = GatewayService(
                spool, source, self._address, gateway_options(self.station.station_id)
            )
            await self._service.run()
        finally:
            self._note()
            spool.close()

    def _note(self) -> None:
        if self._service is not None:
            self.totals.update(vars(self._service.totals))
            self._service = None

    async def end(self) -> None:
        """End it at once, whatever it was doing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(ABRUPT_END_S):
                    await self._task
            self._task = None

    def check(self) -> None:
        """Raise what ended the gateway, if something did."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()


def gateway_options(station_id: str) -> GatewayOptions:
    """Return the options of the benchmark's gateways: as quick as its faults."""
    return GatewayOptions(
        operator_id=CITY_OPERATOR,
        station_id=station_id,
        resend_s=RESEND_S,
        keepalive_s=GATEWAY_KEEPALIVE_S,
        reconnect_max_s=RECONNECT_MAX_S,
        status_s=20.0,
    )


def open_spool(path: Path, station: FaultStation) -> Spool:
    """Return a station's spool; its messages tell the station's own time."""
    return Spool(
        path,
        operator_id=CITY_OPERATOR,
        station_id=station.station_id,
        max_bytes=SPOOL_MB << 20,
        batch_items=1_000,
        clock=station.now,
    )


class FaultCity:
    """All stations and their gateways; a few of these are processes of their own."""

    def __init__(self, site: Site, *, stations: int, processes: int, seed: int) -> None:
        self._site = site
        url = site.url_for(CITY_OPERATOR)
        self._address = broker_address(Settings(mqtt_url=url))
        folder = site.folder / "stations"
        folder.mkdir()
        self.stations = [
            FaultStation(
                f"ST{n:03d}",
                folder / f"ST{n:03d}.jsonl",
                random.Random(f"{seed}:{n}"),  # noqa: S311
            )
            for n in range(stations)
        ]
        for station in self.stations:
            station.path.touch()
        self.processes = [self._process(station, url) for station in self.stations[:processes]]
        self.own = [
            OwnGateway(station, self.spool_of(station), self._address)
            for station in self.stations[processes:]
        ]

    def spool_of(self, station: FaultStation) -> Path:
        """Return where a station's spool is."""
        return station.path.with_suffix(".spool")

    def _process(self, station: FaultStation, url: str) -> Supervised:
        arguments = [
            *("gateway", str(station.path), "--operator", CITY_OPERATOR),
            *("--station", station.station_id, "--spool", str(self.spool_of(station))),
            *("--resend-s", str(RESEND_S), "--keepalive-s", str(GATEWAY_KEEPALIVE_S)),
            *("--reconnect-max-s", str(RECONNECT_MAX_S), "--status-s", "20"),
            *("--spool-mb", str(SPOOL_MB)),
        ]
        log = self._site.folder / f"gateway-{station.station_id}.log"
        return Supervised(arguments, {"CHARGEWATCH_MQTT_URL": url}, log)

    def start(self) -> None:
        """Start all gateways."""
        for process in self.processes:
            process.start()
        for gateway in self.own:
            gateway.start()

    async def end(self) -> None:
        """End all gateways."""
        for process in self.processes:
            process.kill()
        await asyncio.gather(*(gateway.end() for gateway in self.own))

    async def produce(self) -> None:
        """Write readings for ever, every station in its turn."""
        ticks = 0
        while True:
            for station in self.stations:
                station.write()
                await asyncio.sleep(TICK_S / len(self.stations))
            ticks += 1
            if ticks % 200 == 0:
                for station in self.stations:
                    station.forget_old()

    async def watch(self) -> None:
        """See that no gateway ends by itself."""
        while True:
            await asyncio.sleep(1)
            for gateway in self.own:
                gateway.check()

    def clone(self, gateway: OwnGateway) -> OwnGateway:
        """Return a second gateway of the same station with a copy of its spool."""
        folder = self._site.folder / "clone"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        lines = folder / "lines"
        lines.touch()
        copy_spool(gateway.spool_path, folder / "spool")
        twin = FaultStation(gateway.station.station_id, lines, random.Random(0))  # noqa: S311
        return OwnGateway(twin, folder / "spool", self._address)

    async def backlogs(self) -> dict[str, int]:
        """Return how many messages of each station have no receipt, and lines no message."""
        return await asyncio.to_thread(
            lambda: {
                station.station_id: waiting(self.spool_of(station), station.path)
                for station in self.stations
            }
        )

    def totals(self) -> Counter[str]:
        """Return the sums of what the gateways in this process did."""
        sums: Counter[str] = Counter()
        for gateway in self.own:
            sums.update(gateway.totals)
        return sums


def waiting(spool: Path, lines: Path) -> int:
    """Return how many messages of a spool have no receipt; one more when lines wait for it."""
    backlog, taken = look_into_spool(spool, str(lines))
    return backlog + int(taken < lines.stat().st_size)
