"""The engine's posterior against a dense one that is built from its rows by other means."""

from dataclasses import replace

import numpy as np
import pytest
from engine_city import make_city

from chargewatch.risk import inference
from chargewatch.risk.engine import assess
from chargewatch.risk.priors import CABLE_LOSS, KIND_MEAN
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.vehicles import LEVELS, PAIR_KINDS


def dense_posterior(city, system, *, precision):
    """Return mean and standard deviation of gamma, every unknown a column and nothing eliminated.

    Unknowns: gamma, the models' means, mu, c_k and kappa, every vehicle's scale. A session is one
    row, a prior is one row, feeders and verifications add their own statements.
    """
    rows, node = city.statistics.sessions, city.node
    n, g, h = system.size, system.model_precision.size, system.converter_precision.size
    sizes = np.cumsum([0, n, g, h, LEVELS, system.graph.nodes])
    at_model, at_mu, at_level, at_node = sizes[1:5]
    size = sizes[-1]
    s = np.arange(rows.connector.size)
    design = np.zeros((s.size, size))
    design[s, rows.connector] = 1.0
    design[s, at_level + rows.kind] = 1.0
    design[s, at_level + PAIR_KINDS + rows.side] = rows.load
    design[s, at_node + node] = 1.0
    matrix = design.T @ (precision[:, None] * design)
    vector = design.T @ (precision * rows.log_ratio)
    index = np.arange(n)
    matrix[index, index] += system.direct_precision
    vector[:n] += system.direct_score
    for k in range(n):
        row = np.zeros(size)
        row[k], row[at_model + system.model[k]] = 1.0, -1.0
        matrix += system.prior_precision[k] * np.outer(row, row)
    believed = np.concatenate(
        [
            system.model_precision,
            system.converter_precision,
            np.full(PAIR_KINDS, KIND_MEAN.u**-2.0),
            np.full(LEVELS - PAIR_KINDS, CABLE_LOSS.u**-2.0),
            system.graph.vehicle_sd**-2.0,
        ]
    )
    mean = np.zeros(size - n)
    mean[g : g + h] = system.converter_mean
    mean[at_level - n + PAIR_KINDS : at_node - n] = CABLE_LOSS.mean
    later = np.arange(n, size)
    matrix[later, later] += believed
    vector[n:] += believed * mean
    for feeder in system.feeders:
        for b in range(feeder.member.shape[0]):
            known = np.flatnonzero(feeder.member[b] >= 0)
            row = np.zeros((known.size, size))
            row[np.arange(known.size), feeder.member[b, known]] = 1.0
            lossy = feeder.converter[b, known] >= 0
            row[np.flatnonzero(lossy), at_mu + feeder.converter[b, known][lossy]] = 1.0
            matrix += row.T @ feeder.precision[b][np.ix_(known, known)] @ row
            vector += row.T @ feeder.score[b, known]
    scale = 1.0 / np.sqrt(np.diagonal(matrix))
    covariance = np.linalg.inv(matrix * scale[:, None] * scale) * scale[:, None] * scale
    return (covariance @ vector)[:n], np.sqrt(np.diagonal(covariance)[:n])


def test_the_posterior_is_that_of_a_dense_solution_of_the_same_rows(monkeypatch):
    found = {}

    def kept(city, known, evidence, estimate, pasts):
        found.update(city=city, evidence=evidence, estimate=estimate, pasts=pasts)
        return original(city, known, evidence, estimate, pasts)

    original = inference.conflicts
    monkeypatch.setattr(inference, "conflicts", kept)
    city = make_city(7, stations=4, dc_stations=2, size=5, anchors=5, vehicles=40, offenders=1)
    assess(city.inputs, config=replace(EngineConfig(), draws=256))
    assert not found["pasts"].of.size
    evidence, estimate = found["evidence"], found["estimate"]
    mean, u = dense_posterior(found["city"], evidence.system, precision=evidence.precision)
    assert np.abs(estimate.error - mean).max() < 0.02 * u.min()
    assert np.sqrt(estimate.variance) == pytest.approx(u, rel=0.02)
