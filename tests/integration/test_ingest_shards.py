"""Several workers share the stations; nothing falls between them, whatever happens to one."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from tests.integration.ingest_fleet import (
    Fleet,
    Ingest,
    check,
    until_all_stored,
)

from chargewatch.errors import SettingError
from chargewatch.ingest.shards import Shard, parse_shard


async def start(ingest: Ingest, shard: str) -> None:
    ingest.start(shard=shard)
    await ingest.until_logged("subscribed")


async def test_three_workers_share_and_one_is_killed_and_comes_back(
    broker_url: str,
    database_url: str,
    make_ingest,
):
    workers = [make_ingest(broker_url, database_url) for _ in range(3)]
    fleet = Fleet(broker_url, stations=9)
    for number, worker in enumerate(workers):
        await start(worker, f"{number}/3")
    await fleet.publish(4)
    publishing = asyncio.create_task(fleet.publish(10, pause_s=0.05))
    workers[1].kill()
    await publishing
    workers[1].start(shard="1/3")
    await check(database_url, fleet)
    connection = await asyncpg.connect(database_url)
    # Each message was booked once: no worker took another's.
    assert await connection.fetchval("SELECT sum(duplicate)::int FROM ledger_stream") == 0
    await connection.close()
    for worker in workers:
        assert await asyncio.to_thread(worker.terminate) == 0


@pytest.mark.parametrize("after", ["0/1", "0/2"])
async def test_another_number_of_shards_finds_what_the_old_sessions_hold(
    after: str,
    broker_url: str,
    database_url: str,
    make_ingest,
):
    fleet = Fleet(broker_url, stations=6)
    for number in range(3):
        worker = make_ingest(broker_url, database_url)
        await start(worker, f"{number}/3")
        assert await asyncio.to_thread(worker.terminate) == 0
    await fleet.publish(5)
    count = int(after.partition("/")[2])
    for number in range(count):
        await start(make_ingest(broker_url, database_url), f"{number}/{count}")
    await fleet.publish(3)
    await until_all_stored(database_url, fleet)
    connection = await asyncpg.connect(database_url)
    async with asyncio.timeout(30):
        while await connection.fetchval("SELECT count(*) FROM ingest_session") > count:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await connection.close()
    await until_all_stored(database_url, fleet)


def test_every_topic_has_one_worker():
    topics = [f"cw/v1/OP{n % 3}/ST{n}/registers" for n in range(300)] + ["cw/v1/a b/c/status"]
    shards = [Shard(index, 4) for index in range(4)]
    for topic in topics:
        assert sum(shard.owns(topic) for shard in shards) == 1
    for shard in shards:
        assert 40 < sum(shard.owns(topic) for topic in topics) < 110
    station = {
        shard.owns(f"cw/v1/OP/ST/{kind}")
        for kind in ("registers", "status")
        for shard in shards[:1]
    }
    assert len(station) == 1


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/2", "a/b", "0/0", "1/2/3"])
def test_a_wrong_shard_is_named(text: str):
    with pytest.raises(SettingError, match="--shard"):
        parse_shard(text)
