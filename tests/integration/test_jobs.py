"""Jobs: done once, whoever is killed in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from chargewatch.errors import ChargewatchError
from chargewatch.settings import Settings
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.office import jobs as rows
from chargewatch.supervision import audit
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.jobs.asking import JobError, ask_again, ask_for
from chargewatch.supervision.jobs.kinds import JobKind, NotNowError, Work
from chargewatch.supervision.jobs.worker import TRIES_OF_A_JOB, Worker, delay_s, due_key
from running import RunCommand
from web_client import Site, open_site

ME = Actor(name="test")
SHANGHAI = ZoneInfo("Asia/Shanghai")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        async with opened.begin() as connection:
            await connection.execute(text("CREATE TABLE done_work (job_id bigint, by text)"))
        yield opened


def kind(work: Callable[[Work], Awaitable[Any]], **more: Any) -> JobKind:
    return JobKind(name="test", meaning="of a test", work=work, **more)


async def asked(database: Database, *, key: str | None = None) -> int:
    async with database.begin() as connection:
        return await ask_for(connection, "test", {"n": 1}, actor=ME, key=key)


async def found(database: Database, job_id: int) -> Any:
    async with database.connect() as connection:
        return await rows.one(connection, job_id)


async def write_and_end(work: Work) -> None:
    async with work.database.begin() as connection:
        await connection.execute(
            text("INSERT INTO done_work VALUES (:job, :by)"),
            {"job": work.job_id, "by": work.worker},
        )
        await work.done(connection, {"n": work.arguments["n"]})


async def works_done(database: Database) -> list[tuple[int, str]]:
    async with database.connect() as connection:
        return [tuple(row) for row in await connection.execute(text("SELECT * FROM done_work"))]


async def test_a_job_is_done_and_says_what_came_out(database: Database) -> None:
    job_id = await asked(database)
    assert await Worker(database, Settings(), [kind(write_and_end)]).run(until_idle=True) == 1
    row = await found(database, job_id)
    assert (row["state"], row["result"], row["tries"]) == ("done", {"n": 1}, 1)
    assert row["wanted_by"] == "test"


async def test_what_a_key_asks_for_twice_is_one_job(database: Database) -> None:
    both = await asyncio.gather(asked(database, key="once"), asked(database, key="once"))
    assert both[0] == both[1]
    assert await Worker(database, Settings(), [kind(write_and_end)]).run(until_idle=True) == 1
    assert await asked(database, key="once") == both[0]
    assert await Worker(database, Settings(), [kind(write_and_end)]).run(until_idle=True) == 0


async def test_many_workers_do_every_job_once(database: Database) -> None:
    wanted = {await asked(database) for _ in range(30)}
    workers = [Worker(database, Settings(), [kind(write_and_end)]) for _ in range(4)]
    tried = await asyncio.gather(*(worker.run(until_idle=True) for worker in workers))
    assert sum(tried) == 30
    done = await works_done(database)
    assert {job for job, _ in done} == wanted
    assert len(done) == 30
    assert len({by for _, by in done}) > 1


async def test_who_lost_a_job_takes_back_what_it_did(database: Database) -> None:
    job_id = await asked(database)

    async def be_given_up_at_first(work: Work) -> None:
        if work.tries == 1:
            async with work.database.begin() as connection:
                await connection.execute(
                    text("UPDATE job SET alive_at = alive_at - interval '1 hour'")
                )
            async with work.database.begin() as connection:
                gone = await rows.give_up_dead(
                    connection, dead_after_s=30, most_tries=TRIES_OF_A_JOB, error="silent"
                )
                assert gone == 1
        await write_and_end(work)
        ends.append(work.tries)

    ends: list[int] = []
    worker = Worker(database, Settings(), [kind(be_given_up_at_first)])
    assert await worker.run(until_idle=True) == 2
    assert ends == [2], "the first try found that the job was another's, though of one name"
    assert await works_done(database) == [(job_id, worker.name)]
    row = await found(database, job_id)
    assert (row["state"], row["tries"]) == ("done", 2)


async def test_what_passes_is_tried_again_later_and_later(database: Database) -> None:
    async def away(work: Work) -> None:
        raise NotNowError("the mail server is away")

    job_id = await asked(database)
    worker = Worker(database, Settings(), [kind(away)])
    for tries in range(1, TRIES_OF_A_JOB + 1):
        assert await worker.run(until_idle=True) == 1
        row = await found(database, job_id)
        assert row["tries"] == tries
        assert "the mail server is away" in row["error"]
        if tries < TRIES_OF_A_JOB:
            assert row["state"] == "waiting"
            wait_s = (row["due_at"] - datetime.now(UTC)).total_seconds()
            assert wait_s == pytest.approx(delay_s(tries), abs=5)
            assert await worker.run(until_idle=True) == 0
            async with database.begin() as connection:
                await connection.execute(text("UPDATE job SET due_at = now()"))
    assert row["state"] == "failed"
    async with database.begin() as connection:
        await ask_again(connection, job_id, actor=ME)
    row = await found(database, job_id)
    assert (row["state"], row["tries"]) == ("waiting", 0)
    with pytest.raises(JobError, match="waiting"):
        async with database.begin() as connection:
            await ask_again(connection, job_id, actor=ME)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ChargewatchError("no such file 7"), "no such file 7"),
        (ZeroDivisionError("own fault"), "the platform failed, report it: ZeroDivisionError"),
    ],
)
async def test_what_does_not_pass_fails_at_once(
    database: Database, error: Exception, told: str
) -> None:
    async def fail(work: Work) -> None:
        raise error

    job_id = await asked(database)
    await Worker(database, Settings(), [kind(fail)]).run(until_idle=True)
    row = await found(database, job_id)
    assert (row["state"], row["tries"]) == ("failed", 1)
    assert row["error"].startswith(told)


async def test_a_wrong_statement_of_ours_is_not_repeated(database: Database) -> None:
    async def wrong(work: Work) -> None:
        async with work.database.begin() as connection:
            await connection.execute(text("SELECT 1 / 0"))

    job_id = await asked(database)
    await Worker(database, Settings(), [kind(wrong)]).run(until_idle=True)
    assert (await found(database, job_id))["state"] == "failed"


async def test_a_worker_that_lives_says_so_while_it_works(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chargewatch.supervision.jobs.worker.ALIVE_EVERY_S", 0.05)
    seen = []

    async def slow(work: Work) -> None:
        for _ in range(2):
            await asyncio.sleep(0.2)
            seen.append((await found(database, work.job_id))["alive_at"])
        await work.progress("half of it")

    job_id = await asked(database)
    await Worker(database, Settings(), [kind(slow)]).run(until_idle=True)
    assert seen[0] < seen[1]
    assert (await found(database, job_id))["progress"] == "half of it"


async def test_a_job_that_was_lost_is_stopped(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chargewatch.supervision.jobs.worker.ALIVE_EVERY_S", 0.05)

    async def for_ever(work: Work) -> None:
        async with work.database.begin() as connection:
            await connection.execute(text("UPDATE job SET state = 'waiting', due_at = 'infinity'"))
        await asyncio.sleep(60)

    await asked(database)
    began = time.monotonic()
    assert await Worker(database, Settings(), [kind(for_ever)]).run(until_idle=True) == 1
    assert time.monotonic() - began < 30


def test_a_timer_asks_once_a_day_and_makes_up_for_what_was_missed() -> None:
    daily = kind(write_and_end, daily_at=clock(3, 30))
    at = datetime(2026, 12, 1, 3, 30, tzinfo=SHANGHAI)
    assert due_key(daily, at, SHANGHAI) == "test 2026-12-01"
    assert due_key(daily, at + timedelta(hours=20), SHANGHAI) == "test 2026-12-01"
    assert due_key(daily, at - timedelta(seconds=1), SHANGHAI) == "test 2026-11-30"
    often = kind(write_and_end, every_s=300)
    assert due_key(often, at, SHANGHAI) == due_key(often, at + timedelta(seconds=299), SHANGHAI)
    assert due_key(often, at, SHANGHAI) != due_key(often, at + timedelta(seconds=300), SHANGHAI)
    assert due_key(kind(write_and_end), at, SHANGHAI) == ""


async def test_two_workers_do_what_a_timer_asks_for_once(database: Database) -> None:
    async def nothing(work: Work) -> str:
        return work.actor.name

    daily = kind(nothing, daily_at=clock(0, 0))
    workers = [Worker(database, Settings(), [daily]) for _ in range(3)]
    tried = await asyncio.gather(*(worker.run(until_idle=True) for worker in workers))
    assert sum(tried) == 1
    assert await workers[0].run(until_idle=True) == 0


KILLED_IN_THE_MIDDLE = """
    import asyncio, os, signal, sys
    from sqlalchemy import text
    from chargewatch.settings import load_settings
    from chargewatch.storage.database import open_database
    from chargewatch.supervision.jobs.kinds import JobKind
    from chargewatch.supervision.jobs.worker import Worker

    async def work(work):
        async with work.database.begin() as connection:
            await connection.execute(
                text("INSERT INTO done_work VALUES (:job, 'killed')"), {"job": work.job_id}
            )
            if sys.argv[1] == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            await work.done(connection)
            if sys.argv[1] == "after":
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    async def main():
        settings = load_settings()
        async with open_database(settings.database_url) as database:
            kind = JobKind(name="test", meaning="of a test", work=work)
            await Worker(database, settings, [kind]).run(until_idle=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize("point", ["before", "after", "committed"])
async def test_a_worker_killed_in_the_middle_leaves_nothing_half_done(
    database: Database, tmp_path: Path, point: str
) -> None:
    job_id = await asked(database)
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(KILLED_IN_THE_MIDDLE))
    environment = {**os.environ, "CHARGEWATCH_DATABASE_URL": database.url}
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(script), point], env=environment, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    if point == "committed":
        assert (await found(database, job_id))["state"] == "done"
        assert await works_done(database) == [(job_id, "killed")]
        return
    assert await works_done(database) == []
    assert (await found(database, job_id))["state"] == "running"
    worker = Worker(database, Settings(), [kind(write_and_end)])
    assert await worker.run(until_idle=True) == 0, "it may still live"
    async with database.begin() as connection:
        await connection.execute(text("UPDATE job SET alive_at = alive_at - interval '31 s'"))
    assert await worker.run(until_idle=True) == 1
    assert await works_done(database) == [(job_id, worker.name)]


async def test_a_job_that_kills_its_workers_is_given_up(database: Database) -> None:
    job_id = await asked(database)
    for _ in range(TRIES_OF_A_JOB):
        async with database.begin() as connection:
            assert await rows.take(connection, worker="one", kinds=["test"]) is not None
            await connection.execute(text("UPDATE job SET alive_at = alive_at - interval '1 h'"))
        assert await Worker(database, Settings(), []).run(until_idle=True) == 0
    row = await found(database, job_id)
    assert (row["state"], row["error"]) == ("failed", "the worker said nothing for 30 s")


async def test_the_command_signs_the_audit_trail_by_its_timer(
    database: Database, run_command: RunCommand
) -> None:
    keys = audit.new_keys("test/audit")
    environment = {
        "CHARGEWATCH_DATABASE_URL": database.url,
        "CHARGEWATCH_AUDIT_KEY": keys.secret(),
    }
    await asked(database)  # of a kind that this version does not know: it stays
    told = await asyncio.to_thread(run_command, "work", "--until-idle", env=environment)
    assert told.returncode == 0, told.stderr
    async with database.connect() as connection:
        signed = await audit.rows.checkpoints(connection)
        states = {row["kind"]: row for row in await rows.newest(connection, limit=9)}
    assert [row["size"] for row in signed] == [1]
    assert states["sign_audit_trail"]["result"] == {"signed": True, "entries": 1}
    assert states["test"]["state"] == "waiting"
    listed = await asyncio.to_thread(
        run_command, "jobs", "list", "--state", "done", env=environment
    )
    assert "sign_audit_trail" in listed.stdout
    wrong = await asyncio.to_thread(run_command, "jobs", "again", "999", env=environment)
    assert (wrong.returncode, "no job 999" in wrong.stderr) == (1, True)


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        yield opened


async def test_page_and_api_show_a_failed_job_and_try_it_again(site: Site) -> None:
    async def fail(work: Work) -> None:
        raise ChargewatchError("file 7 is <b>gone</b>")

    job_id = await asked(site.database)
    await Worker(site.database, site.settings, [kind(fail)]).run(until_idle=True)
    await site.log_in("admin")
    page = await site.client.get("/jobs", params={"state": "failed"})
    assert "file 7 is &lt;b&gt;gone&lt;/b&gt;" in page.text
    assert f'action="/jobs/{job_id}/again"' in page.text
    header = await site.token("admin")
    listed = await site.client.get("/api/v1/jobs", headers=header)
    assert [job["state"] for job in listed.json()["jobs"]] == ["failed"]
    assert (
        await site.client.post(f"/api/v1/jobs/{job_id}/again", headers=header)
    ).status_code == 204
    again = await site.client.post(f"/api/v1/jobs/{job_id}/again", headers=header)
    assert again.status_code == 409
    one = await site.client.get(f"/api/v1/jobs/{job_id}", headers=header)
    assert one.json()["state"] == "waiting"
    assert (await site.client.get("/api/v1/jobs/999", headers=header)).status_code == 404
    for path in ("/api/v1/jobs", f"/api/v1/jobs/{job_id}"):
        assert (await site.client.get(path, headers=await site.token("op1"))).status_code == 403


async def test_a_database_that_goes_away_is_waited_for(database: Database) -> None:
    worker = Worker(database, Settings(), [kind(write_and_end)])
    job_id = await asked(database)
    async with database.begin() as connection:
        # As when the server restarts: connections of the pool are cut.
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    running = asyncio.create_task(worker.run())
    for _ in range(200):
        await asyncio.sleep(0.05)
        if (await found(database, job_id))["state"] == "done":
            break
    worker.stop()
    await running
    assert (await found(database, job_id))["state"] == "done"
