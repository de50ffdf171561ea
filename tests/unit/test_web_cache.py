from __future__ import annotations

import asyncio

import pytest

from chargewatch.api.cache import FigureCache


async def test_concurrent_askers_share_one_computation() -> None:
    cache, calls = FigureCache(), []
    gate = asyncio.Event()

    async def load() -> int:
        calls.append(1)
        await gate.wait()
        return 7

    asking = [asyncio.create_task(cache.get("a", load)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*asking) == [7] * 5
    assert await cache.get("a", load) == 7
    assert len(calls) == 1


async def test_an_asker_that_goes_away_leaves_the_result_to_the_others() -> None:
    cache, gate = FigureCache(), asyncio.Event()

    async def load() -> int:
        await gate.wait()
        return 7

    first = asyncio.create_task(cache.get("a", load))
    second = asyncio.create_task(cache.get("a", load))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == 7
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failure_is_not_kept() -> None:
    cache, results = FigureCache(), [OSError("away"), 7]

    async def load() -> int:
        result = results.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    with pytest.raises(OSError, match="away"):
        await cache.get("a", load)
    assert await cache.get("a", load) == 7


async def test_results_age_and_their_number_is_bounded() -> None:
    cache, count = FigureCache(size=3), iter(range(100))

    async def load() -> int:
        return next(count)

    assert await cache.get("a", load, lifetime_s=1e-9) == 0
    await asyncio.sleep(0.001)
    assert await cache.get("a", load, lifetime_s=60) == 1
    for key in "bcd":
        await cache.get(key, load)
    assert await cache.get("a", load) == 5
