"""Measures how fast a city is made in memory, how fast it is encoded, and in how much memory."""

from __future__ import annotations

import math
import resource
import time
from typing import Any

from chargewatch.domain.times import DAY_S
from chargewatch.simulators.city import City


def measure_city(city: City) -> dict[str, Any]:
    """Return rates and peak memory of one whole history, which is made and thrown away.

    First only the readings are made, as arrays; then everything once more, as encoded messages.
    Rates are by the wall clock; beside them stands the processor's time, which other work on the
    machine doesn't lengthen.
    """
    busy = time.process_time()
    generated, generate_s = _generate(city)
    generate_cpu_s = time.process_time() - busy
    started, busy = time.perf_counter(), time.process_time()
    messages = size = 0
    for packet in city.packets():
        messages, size = messages + 1, size + len(packet.body)
    encode_s, encode_cpu_s = time.perf_counter() - started, time.process_time() - busy
    counts = city.truth()["messages"]
    return {
        "scenario": city.scenario.name,
        "connectors": city.layout.connectors.size,
        "days": city.scenario.days,
        "readings": counts["distinct_readings"],
        "sessions": counts["sessions"],
        "messages": messages,
        "payload_bytes": size,
        "generate_seconds": round(generate_s, 3),
        "generate_cpu_seconds": round(generate_cpu_s, 3),
        "generated_readings_per_s": round(generated / generate_s),
        "encode_seconds": round(encode_s, 3),
        "encode_cpu_seconds": round(encode_cpu_s, 3),
        "encoded_readings_per_s": round(counts["distinct_readings"] / encode_s),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _generate(city: City) -> tuple[int, float]:
    """Return the number of readings made as arrays, and the seconds it took."""
    stream = city.new_stream()
    begin_s, end_s = city.from_s - city.origin_s, city.to_s - city.origin_s
    cadence = city.history_cadence
    count = 0
    started = time.perf_counter()
    low = begin_s
    while low < end_s:
        high = min(stream.chunk_end(cadence, low), end_s)
        block = stream.block(math.floor(low / DAY_S))
        count += stream.sampler.readings(block, cadence, begin_s=low, end_s=high).size
        low = high
    return count, time.perf_counter() - started
