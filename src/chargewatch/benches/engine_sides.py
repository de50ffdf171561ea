"""The two sides of `chargewatch bench engine`, each to be run in a process of its own.

What is compared is each connector's error against the city's mean by its own evidence: the
connector's own prior divided out, the city's mean as estimated. The engine shows that; GPBoost's
prediction is turned into it with the spread of connectors that it estimated.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import time
from dataclasses import dataclass, replace

import numpy as np

from chargewatch.benches.engine_city import (
    BMS_ON_DC,
    COMPARABLE,
    MPE,
    CrossedSessions,
    crossed_sessions,
    engine_inputs,
)
from chargewatch.benches.processor_time import peak_memory_mb
from chargewatch.domain.arrays import Floats
from chargewatch.errors import BenchError
from chargewatch.risk.estimator import CityEstimate, estimate_city, own_evidence
from chargewatch.risk.inference import infer

PERCENT = 100.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one side says of the connectors, shape (n,), and of the city."""

    error: Floats
    u: Floats
    session_spread: float
    vehicle_spread: float
    connector_spread: float
    fit_s: float
    variances_s: float
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A side's answer with what it took; n connectors."""

    told: Told
    data_s: float  # to make the sessions
    data_mb: float  # the process's peak before the side began
    peak_mb: float
    processor_s: float  # of fit and variances


def _at_level(estimate: CityEstimate) -> CityEstimate:
    """Return the estimate with its levels taken as known."""
    shared = ((estimate.sensitivity @ estimate.level_covariance) * estimate.sensitivity).sum(axis=1)
    return replace(
        estimate,
        variance=estimate.variance - shared,
        level_covariance=np.zeros_like(estimate.level_covariance),
    )


def by_engine(sessions: CrossedSessions) -> Told:
    """Return what the engine's rounds make of the sessions.

    Its last solution, which alone has variances, is made twice, to time it apart.
    """
    inputs, statistics = engine_inputs(sessions)
    begun = time.perf_counter()
    inference = infer(inputs, statistics, config=COMPARABLE)
    middle = time.perf_counter()
    system = inference.weighted.system
    estimate_city(system, draws=COMPARABLE.draws, seed=COMPARABLE.seed)
    variances_s = time.perf_counter() - middle
    error, variance = own_evidence(
        _at_level(inference.estimate), model=system.model, prior_precision=system.prior_precision
    )
    return Told(
        error=error - inference.estimate.level[system.model],
        u=np.sqrt(variance),
        session_spread=float(inference.spreads.session[BMS_ON_DC]),
        vehicle_spread=float(inference.spreads.vehicle[BMS_ON_DC]),
        connector_spread=float(inference.population.spread[0]) * MPE,
        fit_s=max(middle - begun - variances_s, 0.0),
        variances_s=variances_s,
        rounds=inference.rounds,
    )


def need_rival() -> str:
    """Return the version of GPBoost. Raises: BenchError when it is not installed."""
    if importlib.util.find_spec("gpboost") is None:
        raise BenchError(
            "GPBoost is not installed: pip install 'chargewatch[rival]' "
            "(it has no package for Linux on ARM), or measure the engine alone with --alone"
        )
    return importlib.metadata.version("gpboost")


def by_gpboost(sessions: CrossedSessions, *, exact: bool = False) -> Told:
    """Return what GPBoost makes of the sessions, variances of connectors and vehicles estimated.

    Equation: dividing a normal prior N(0, s^2) out of N(m, V) leaves N(m s^2 / (s^2 - V), V s^2 /
    (s^2 - V)). Values are in per cent, since its optimiser ends early on small ones.

    Args:
        sessions: the data.
        exact: by Cholesky's decomposition, for small cities; else as GPBoost chooses, by
            iterative methods and simulated variances.
    """
    import gpboost

    begun = time.perf_counter()
    model = gpboost.GPModel(
        group_data=np.column_stack([sessions.connector, sessions.vehicle]),
        likelihood="gaussian",
        matrix_inversion_method="cholesky" if exact else "default",
    )
    model.fit(y=PERCENT * sessions.log_ratio, X=np.ones((sessions.log_ratio.size, 1)))
    middle = time.perf_counter()
    noise, spread2, vehicle2 = np.asarray(model.get_cov_pars(), dtype=np.float64).ravel()
    # A connector's own effect: met by a vehicle that nobody knows, whose variance is taken off.
    who = np.arange(sessions.connectors)
    stranger = np.full(who.size, sessions.vehicle.max() + 1)
    said = model.predict(
        group_data_pred=np.column_stack([who, stranger]),
        X_pred=np.zeros((who.size, 1)),
        predict_var=True,
        predict_response=False,
    )
    variance = said["var"] - vehicle2
    ended = time.perf_counter()
    apart = spread2 / (spread2 - variance)
    return Told(
        error=np.asarray(said["mu"]) * apart / PERCENT,
        u=np.sqrt(variance * apart) / PERCENT,
        session_spread=float(np.sqrt(noise)) / PERCENT,
        vehicle_spread=float(np.sqrt(vehicle2)) / PERCENT,
        connector_spread=float(np.sqrt(spread2)) / PERCENT,
        fit_s=middle - begun,
        variances_s=ended - middle,
        rounds=model._get_num_optim_iter(),
    )


ESTIMATORS = {"engine": by_engine, "gpboost": by_gpboost}


def measured(side: str, connectors: int, seed: int) -> Measured:
    """Return a side's answer on a city, and what it took of this process."""
    # GPBoost writes its warnings to stdout, where a JSON document is to stand.
    os.dup2(2, 1)
    begun = time.perf_counter()
    sessions = crossed_sessions(connectors, seed=seed)
    data_s, data_mb, used = time.perf_counter() - begun, peak_memory_mb(os.getpid()), os.times()
    told = ESTIMATORS[side](sessions)
    now = os.times()
    return Measured(
        told=told,
        data_s=data_s,
        data_mb=data_mb,
        peak_mb=peak_memory_mb(os.getpid()),
        processor_s=now.user + now.system - used.user - used.system,
    )
