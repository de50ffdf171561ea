"""What strikes in `chargewatch bench faults`: each fault begins, lasts a moment, and is healed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from chargewatch.benches.faults_city import FaultCity, OwnGateway
from chargewatch.benches.faults_site import HOSTILE, Site, Supervised
from chargewatch.benches.processor_time import children
from chargewatch.errors import ChargewatchError
from chargewatch.gateway.link import Link, LinkLostError, LinkOptions
from chargewatch.local.processes import process_runs
from chargewatch.local.proxy import Proxy
from chargewatch.mqtt.address import broker_address
from chargewatch.settings import Settings
from chargewatch.wire.kinds import Kind

MEAN_GAP_S = 3.6
HOSTILE_STATION = "X1"


@dataclass
class Ground:
    """What a fault strikes, and the chance that is its own."""

    site: Site
    city: FaultCity
    chance: random.Random

    async def moment(self, least_s: float = 0.2, most_s: float = 2.0) -> None:
        """Let some time pass."""
        await asyncio.sleep(self.chance.uniform(least_s, most_s))

    def own_gateway(self) -> OwnGateway:
        """Return a gateway of this process."""
        return self.chance.choice(self.city.own)

    def gateway_process(self) -> Supervised:
        """Return a gateway that is a process."""
        return self.chance.choice(self.city.processes)

    def link(self) -> Proxy:
        """Return one of the three links."""
        site = self.site
        return self.chance.choice([site.to_broker, site.to_database, site.for_gateways])


Strike = Callable[[Ground], Awaitable[None]]


class LeftOutError(ChargewatchError):
    """A fault can't be made on this machine."""


async def kill_ingest(ground: Ground) -> None:
    """SIGKILL; the supervisor starts it again."""
    ground.site.ingest.kill()
    await ground.moment(0.0, 1.0)
    ground.site.ingest.start()


async def pause_ingest(ground: Ground) -> None:
    """SIGSTOP, as a machine that swaps or a virtual one that is moved."""
    with _stopped([ground.site.ingest.pid]):
        await ground.moment(0.5, 2.5)


async def second_ingest(ground: Ground) -> None:
    """Another ingest with the same client id, by mistake."""
    second = ground.site.command("ingest", name="ingest-second")
    try:
        second.start()
        await ground.moment(2.0, 3.5)
    finally:
        second.kill()
        ground.site.ingest.start()


async def kill_broker(ground: Ground) -> None:
    """SIGKILL; what it had in memory since its last save is gone."""
    await asyncio.to_thread(ground.site.broker.kill)
    await ground.moment(0.0, 1.0)
    await ground.site.restart_broker()


async def pause_broker(ground: Ground) -> None:
    """SIGSTOP of the broker."""
    with _stopped([ground.site.broker.pid]):
        await ground.moment(0.5, 2.0)


async def kill_database(ground: Ground) -> None:
    """SIGKILL of the server and all its processes; it recovers from its log."""
    ground.site.kill_database()
    await ground.moment(0.0, 1.0)
    await ground.site.restart_database()


async def kill_backend(ground: Ground) -> None:
    """SIGKILL of one of the server's processes: the server restarts all of them."""
    server = ground.site.database.pid
    if server is not None and (found := children(server)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(ground.chance.choice(sorted(found)), signal.SIGKILL)
    await ground.moment(0.2, 1.0)


async def pause_database(ground: Ground) -> None:
    """SIGSTOP of the server's processes."""
    server = ground.site.database.pid
    with _stopped([] if server is None else [server, *children(server)]):
        await ground.moment(0.5, 2.0)


async def kill_gateway(ground: Ground) -> None:
    """SIGKILL of a gateway."""
    gateway = ground.gateway_process()
    gateway.kill()
    await ground.moment(0.0, 0.5)
    gateway.start()


async def pause_gateway(ground: Ground) -> None:
    """SIGSTOP of a gateway, longer than the broker waits for its PINGREQ."""
    with _stopped([ground.gateway_process().pid]):
        await ground.moment(1.0, 6.0)


async def end_gateway(ground: Ground) -> None:
    """A gateway is ended in the middle of what it does, and begins again."""
    gateway = ground.own_gateway()
    await gateway.end()
    await ground.moment(0.0, 1.0)
    gateway.start()


async def cut_link(ground: Ground) -> None:
    """A link breaks, in the middle of a packet or all at once."""
    link = ground.link()
    if ground.chance.random() < 0.5:
        link.cut_after(ground.chance.randrange(1, 20_000))
        await ground.moment(0.2, 1.0)
    link.cut(share=ground.chance.uniform(0.3, 1.0), chance=ground.chance)


async def half_open_link(ground: Ground) -> None:
    """Both ends see a link stand, nothing comes through; gateways find out by themselves."""
    link = ground.link()
    link.swallow()
    await ground.moment(1.0, 3.0)
    if link is not ground.site.for_gateways:
        # Ingest's keep-alive takes longer than the benchmark's patience.
        link.cut_swallowed()


async def slow_link(ground: Ground) -> None:
    """A link takes its time for every 4 KiB."""
    link = ground.link()
    link.delay_s = ground.chance.uniform(0.02, 0.3)
    try:
        await ground.moment(1.0, 4.0)
    finally:
        link.delay_s = 0.0


async def fill_database_disk(ground: Ground) -> None:
    """No room on the database's file system, or none in its files where none could be mounted."""
    site = ground.site
    if not site.own_disk:
        try:
            with _no_growth(site.database.pid):
                await ground.moment(1.0, 2.5)
        except PermissionError as exc:
            raise LeftOutError(
                "a full disk of the database: neither a file system could be mounted nor its "
                "files' sizes limited"
            ) from exc
    else:
        try:
            await asyncio.to_thread(_fill, str(site.ballast))
            await ground.moment(1.0, 2.5)
        finally:
            site.ballast.unlink(missing_ok=True)
    await site.restart_database()


async def fill_gateway_disk(ground: Ground) -> None:
    """A gateway's spool can't grow."""
    gateway = ground.gateway_process()
    with _no_growth(gateway.pid):
        await ground.moment(1.0, 3.0)


async def jump_clock(ground: Ground) -> None:
    """A station's clock jumps: back by up to two hours, ahead by up to eight minutes."""
    station = ground.chance.choice(ground.city.stations)
    station.clock_s = ground.chance.choice([0.0, -7200.0, -60.0, 60.0, 480.0])


async def jump_ingest_clock(ground: Ground) -> None:
    """The clock of ingest jumps, as far as a station's readings are not in the future for it."""
    ground.site.set_clock(ground.chance.choice([-60, -30, 60, 3_600, 7_200]))
    await ground.moment(1.0, 4.0)
    ground.site.set_clock(0)


async def double_gateway(ground: Ground) -> None:
    """A second gateway with the client id and a copy of the spool of one that runs."""
    original = ground.own_gateway()
    twin = await asyncio.to_thread(ground.city.clone, original)
    twin.start()
    try:
        await ground.moment(1.0, 3.0)
    finally:
        await twin.end()


async def migrate(ground: Ground) -> None:
    """`chargewatch migrate` while everything runs."""
    migration = ground.site.command("migrate", name="migrate")
    migration.start()
    try:
        async with asyncio.timeout(20):
            while migration.pid is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        migration.kill()


async def poison(ground: Ground) -> None:
    """A hostile operator sends what nobody can read."""
    link = Link(
        broker_address(Settings(mqtt_url=ground.site.url_for(HOSTILE))),
        LinkOptions(
            client_id=f"{HOSTILE}:{HOSTILE_STATION}",
            username=HOSTILE,
            receipt_topic=f"cw/v1/{HOSTILE}/{HOSTILE_STATION}/receipt",
            will_topic=f"cw/v1/{HOSTILE}/{HOSTILE_STATION}/status",
            will_payload=b'{"online": false}',
            keepalive_s=30,
        ),
    )
    with contextlib.suppress(LinkLostError):
        async with asyncio.timeout(8), link.connect() as connection:
            for number in range(20):
                kind = ground.chance.choice(list(Kind))
                payload = _malformed(ground.chance, number)
                topic = f"cw/v1/{HOSTILE}/{HOSTILE_STATION}/{kind}"
                await connection.publish(topic, payload)


def _malformed(chance: random.Random, number: int) -> bytes:
    """Return bytes that no honest gateway sends."""
    deep = b"[" * chance.choice([40, 1_000, 5_000])
    reading = b'{"connector":"X","at":"2026-01-01T00:00:00Z","energy_wh":'
    good = b'{"seq":%d,"sent_at":"2026-01-01T00:00:00Z","readings":' % chance.choice(
        [number + 1, 10**15, 2**63]
    )
    return chance.choice(
        [
            chance.randbytes(chance.randrange(0, 2_000)),
            b"\x1f\x8b" + chance.randbytes(300),
            b'{"seq":1,"readings":[],"x":' + deep,
            good + deep + b"]" * len(deep) + b"}",
            good + b"[" + reading + b"1e400}]}",
            good + b"[" + reading + b"-5}," + reading + b'"\\u0000"}]}',
            good + b"[" + b",".join([b"{}"] * 3_000) + b"]}",
            good + b'[{"connector":"ST000-0","at":"2026-01-01T00:00:00Z","energy_wh":1}]}',
            b'{"seq":1e30,"sent_at":"9999-12-31T23:59:59-23:59","sessions":[null,7,[]]}',
        ]
    )


@contextlib.contextmanager
def _stopped(pids: list[int | None]) -> Iterator[None]:
    """Hold processes still; those that end meanwhile are let go."""
    held = [pid for pid in pids if pid is not None]
    try:
        for pid in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _no_growth(server: int | None) -> Iterator[None]:
    """Let no file of a process and its children grow above a few bytes."""
    pids = [] if server is None else [server, *children(server)]
    for pid in pids:
        _limit_files(pid, 4_096)
    try:
        yield
    finally:
        for pid in pids if server is None else {*pids, *children(server)}:
            _limit_files(pid, resource.RLIM_INFINITY)


def _limit_files(pid: int, size: int) -> None:
    if process_runs(pid):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _fill(path: str) -> None:
    """Fill a file system to its last byte."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):  # noqa: PTH123
        block = bytes(1 << 20)
        while file.write(block):
            pass


@dataclass(frozen=True)
class StrikeKind:
    """A fault, how often it strikes, and what it must not share with another at a time."""

    strike: Strike
    weight: int
    target: str

    @property
    def name(self) -> str:
        """Its name in the figures."""
        return self.strike.__name__


STRIKE_KINDS = (
    StrikeKind(kill_ingest, 12, "ingest"),
    StrikeKind(pause_ingest, 4, "ingest"),
    StrikeKind(second_ingest, 2, "ingest"),
    StrikeKind(kill_broker, 10, "broker"),
    StrikeKind(pause_broker, 4, "broker"),
    StrikeKind(kill_database, 8, "database"),
    StrikeKind(kill_backend, 5, "database"),
    StrikeKind(pause_database, 4, "database"),
    StrikeKind(fill_database_disk, 4, "database"),
    StrikeKind(kill_gateway, 12, "gateway"),
    StrikeKind(pause_gateway, 4, "gateway"),
    StrikeKind(end_gateway, 6, "own gateway"),
    StrikeKind(fill_gateway_disk, 4, "gateway"),
    StrikeKind(double_gateway, 4, "own gateway"),
    StrikeKind(cut_link, 12, "link"),
    StrikeKind(half_open_link, 6, "link"),
    StrikeKind(slow_link, 5, "link"),
    StrikeKind(jump_clock, 4, "clock"),
    StrikeKind(jump_ingest_clock, 4, "ingest clock"),
    StrikeKind(migrate, 2, "migrate"),
    StrikeKind(poison, 5, "poison"),
)


@dataclass(frozen=True)
class Planned:
    """A fault and when it strikes, s from the beginning."""

    number: int
    at_s: float
    kind: StrikeKind


def schedule(*, seed: int, seconds: float) -> list[Planned]:
    """Return all faults of a run: the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311
    planned: list[Planned] = []
    at_s = chance.uniform(0.5, 2.0)
    weights = [kind.weight for kind in STRIKE_KINDS]
    while at_s < seconds:
        # Every kind once before chance decides, so that a short run has all of them.
        turn = len(planned)
        first = sorted(STRIKE_KINDS, key=lambda kind: -kind.weight)
        kind = first[turn] if turn < len(first) else chance.choices(STRIKE_KINDS, weights)[0]
        planned.append(Planned(turn, at_s, kind))
        at_s += chance.uniform(0.4 * MEAN_GAP_S, 1.6 * MEAN_GAP_S)
    return planned


async def strike_all(
    planned: list[Planned], site: Site, city: FaultCity, *, seed: int, struck: Counter[str]
) -> None:
    """Let every fault strike at its time; two of one target never at once."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    targets = {kind.target: asyncio.Lock() for kind in STRIKE_KINDS}

    async def one(fault: Planned) -> None:
        chance = random.Random(f"{seed}:fault:{fault.number}")  # noqa: S311
        async with targets[fault.kind.target]:
            site.log.append(f"{loop.time() - began:.1f} {fault.kind.name}")
            try:
                await fault.kind.strike(Ground(site, city, chance))
            except LeftOutError as exc:
                site.left_out.add(str(exc))
                return
        struck[fault.kind.name] += 1

    async with asyncio.TaskGroup() as group:
        for fault in planned:
            await asyncio.sleep(max(0.0, began + fault.at_s - loop.time()))
            group.create_task(one(fault))
