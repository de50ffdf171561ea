"""`chargewatch bench engine`: the engine's least squares against GPBoost on the same sessions."""

from __future__ import annotations

import os
import platform
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import click
import numpy as np
import orjson

from chargewatch.benches.assess_city import VEHICLES_A_CONNECTOR
from chargewatch.benches.engine_city import (
    CONNECTOR_SPREAD,
    SESSION_SPREAD,
    SESSIONS_A_CONNECTOR,
    VEHICLE_SPREAD,
    crossed_sessions,
)
from chargewatch.benches.engine_sides import Measured, Told, measured, need_rival
from chargewatch.domain.arrays import Floats

NORMAL_95 = 1.96
COMPARED = (
    "each connector's error against the city's mean by its own evidence (its own prior divided "
    "out), before the population's mixture enters; all is normal, variances are estimated"
)


def in_process(side: str, connectors: int, seed: int) -> Measured:
    """Return a side's answer from a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured, side, connectors, seed).result()


def coverage(told: Told, truth: Floats) -> float:
    """Return the share of 95 % intervals that hold the true error."""
    away = told.error - (truth - truth.mean())
    return float(np.mean(np.abs(away) <= NORMAL_95 * told.u))


def agreement(engine: Told, other: Told) -> dict[str, float]:
    """Return how far two answers are apart, in the other one's standard uncertainties."""
    means = (engine.error - other.error) / other.u
    ratio = engine.u / other.u - 1.0
    return {
        "mean_rms_u": float(np.sqrt(np.mean(means**2))),
        "mean_largest_u": float(np.abs(means).max()),
        "u_bias": float(ratio.mean()),
        "u_rms": float(np.sqrt(np.mean(ratio**2))),
        "u_largest": float(np.abs(ratio).max()),
    }


def _side(run: Measured, truth: Floats) -> dict[str, Any]:
    told = run.told
    return {
        "seconds_fit": round(told.fit_s, 2),
        "seconds_variances": round(told.variances_s, 2),
        "processor_seconds": round(run.processor_s, 1),
        "peak_memory_mb": round(run.peak_mb),
        "memory_before_mb": round(run.data_mb),
        "rounds": told.rounds,
        "connector_spread": told.connector_spread,
        "vehicle_spread": told.vehicle_spread,
        "session_spread": told.session_spread,
        "mean_u": float(told.u.mean()),
        "coverage": coverage(told, truth),
    }


def _line(name: str, side: dict[str, Any]) -> str:
    spreads = ", ".join(
        f"{side[key] * 100:.3f}" for key in ("connector_spread", "vehicle_spread", "session_spread")
    )
    return (
        f"  {name}: fit {side['seconds_fit']:.1f} s, variances {side['seconds_variances']:.1f} s, "
        f"{side['processor_seconds']:.1f} s of processor, {side['peak_memory_mb']:.0f} MB "
        f"({side['memory_before_mb']:.0f} before), {side['rounds']} rounds; spreads {spreads} %; "
        f"u {side['mean_u'] * 100:.3f} %; coverage of 95 %: {side['coverage'] * 100:.1f} %"
    )


def _agreement_line(apart: dict[str, float], speed: float) -> str:
    return (
        f"  apart: means {apart['mean_rms_u']:.3f} u rms, {apart['mean_largest_u']:.2f} at most; "
        f"u {apart['u_bias'] * 100:+.2f} % on the mean, {apart['u_rms'] * 100:.2f} % rms, "
        f"{apart['u_largest'] * 100:.1f} % at most; the engine took 1/{speed:.1f} of the time"
    )


@click.command("engine")
@click.option(
    "--connectors",
    type=click.IntRange(50, 1_000_000),
    default=10_000,
    show_default=True,
    help=f"With {VEHICLES_A_CONNECTOR} vehicles and {SESSIONS_A_CONNECTOR} sessions each.",
)
@click.option("--seed", type=int, default=1001, show_default=True, help="Of the made-up sessions.")
@click.option("--alone", is_flag=True, help="Without GPBoost: it may not be installed.")
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout.")
def command(connectors: int, seed: int, alone: bool, as_json: bool) -> None:
    """Measure the engine against GPBoost. Crossed errors of connectors and vehicles.

    The same sessions, one side after the other, each in a process of its own, with all cores.
    """
    rival = None if alone else need_rival()
    truth = crossed_sessions(connectors, seed=seed).error
    click.echo(
        f"{connectors} connectors, {connectors * VEHICLES_A_CONNECTOR} vehicles, "
        f"{connectors * SESSIONS_A_CONNECTOR} sessions; true spreads "
        f"{CONNECTOR_SPREAD * 100:.3f}, {VEHICLE_SPREAD * 100:.3f}, {SESSION_SPREAD * 100:.3f} %",
        err=as_json,
    )
    click.echo(f"  compared: {COMPARED}", err=as_json)
    ours = in_process("engine", connectors, seed)
    document: dict[str, Any] = {
        "bench": "engine",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "note": COMPARED,
        "connectors": connectors,
        "seed": seed,
        "engine": _side(ours, truth),
    }
    click.echo(_line("engine", document["engine"]), err=as_json)
    if rival is not None:
        theirs = in_process("gpboost", connectors, seed)
        document["gpboost"] = {"version": rival, **_side(theirs, truth)}
        click.echo(_line(f"GPBoost {rival}", document["gpboost"]), err=as_json)
        took, needed = (run.told.fit_s + run.told.variances_s for run in (theirs, ours))
        document["agreement"] = {
            **agreement(ours.told, theirs.told),
            "times_faster": round(took / needed, 2),
        }
        click.echo(_agreement_line(document["agreement"], took / needed), err=as_json)
    if as_json:
        click.echo(orjson.dumps(document).decode())
