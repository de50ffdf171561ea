"""Evidence A to D in one weighted least squares, at the scale of a city.

Unknowns: gamma_i = ln(1 + eps_i) for every connector, and a few shared ones ("levels"): the mean
error lambda_g of each model of pile, the mean log loss mu_h of each class of converter, the mean
scale c_k of the vehicles by kind, the loss kappa of cables on AC and on DC. Vehicles leave by a
Schur complement (`vehicles`), feeders are dense blocks (`balance`), the bias of each reference
meter and the spread of each pile's efficiency leave by Woodbury's identity inside a block. The
matrix over gamma is never formed:
conjugate gradients with a block-Jacobi preconditioner, one block a feeder.

Variances: draws z from N(0, H) are solved for together with the mean; the variance of gamma_i is
its conditional variance in its block plus the mean square of the conditional mean over the draws
(Rao-Blackwell). The conditional mean of a draw x = H^-1 z is x - H_bb^-1 z. Levels are solved
exactly beside the draws, because a few draws can't tell what all connectors share.
Source: Siden, Lindgren, Bolin, Villani, JCGS 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chargewatch.domain.arrays import Floats, Ints, by_row, sum_by_row
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.vehicles import (
    LEVEL_MEAN,
    LEVEL_PRECISION,
    LEVELS,
    VehicleGraph,
    error_product,
    score_draws,
    session_coupling,
)

TOLERANCE = 1e-8
ROUGH_TOLERANCE = 1e-4
"""Of the rounds before the last, whose results only set weights and spreads."""
MEAN_TOLERANCE = 1e-6
"""Of the mean in all rounds: what a whole city shares moves slowly and hides in a rough one."""
MAX_STEPS = 200
DRAWS_AT_ONCE = 4
DRAW_TOLERANCE = 1e-5
"""Of the draws: next to their own scatter, 18 % of a variance with 16 of them, it is nothing."""
LEAST_CHANGE = 0.1
"""Least factor on a precision when priors and verifications change that it was made with."""
COLUMNS_AT_ONCE = 8
"""Right-hand sides that are solved together: a row of them fills one line of a cache."""


@dataclass(frozen=True, kw_only=True)
class FeederEvidence:
    """A group's feeders as Gaussian statements on z = gamma + mu; b feeders of padded size q."""

    member: Ints  # (b, q), -1 where padded
    converter: Ints  # (b, q), class of the converter for mu, -1 for none
    precision: Floats  # (b, q, q), Q, 0 where padded
    score: Floats  # (b, q), Q z

    def add_product(self, blocks: Floats, values: Floats, *, out: Floats) -> None:
        """Add blocks (b, q, q) times values (n, r) to the members' rows of `out`."""
        # Where padded the last row is taken; its product with the others is 0, and it is dropped.
        known = self.member >= 0
        product = blocks @ values[self.member]
        out[self.member[known]] += product[known]


@dataclass(frozen=True, kw_only=True)
class CitySystem:
    """All evidence with its weights; n connectors, g models, h converter classes."""

    feeders: tuple[FeederEvidence, ...]
    graph: VehicleGraph
    direct_precision: Floats  # (n,), in-series meters and verifications
    direct_score: Floats  # (n,), precision x gamma
    prior_precision: Floats  # (n,), 1 / s_i^2 around the model's mean
    model: Ints  # (n,), 0 .. g-1
    model_precision: Floats  # (g,), prior of lambda around 0
    converter_mean: Floats  # (h,), prior of mu
    converter_precision: Floats  # (h,)

    @property
    def size(self) -> int:
        """Number of connectors n."""
        return self.direct_precision.size

    @property
    def levels(self) -> int:
        """Number of shared unknowns: lambda, mu, c_k, kappa."""
        return self.model_precision.size + self.converter_precision.size + LEVELS


@dataclass(frozen=True, kw_only=True)
class CityEstimate:
    """The posterior; n connectors, t levels."""

    error: Floats  # (n,), gamma
    variance: Floats  # (n,)
    level: Floats  # (t,)
    level_covariance: Floats  # (t, t)
    sensitivity: Floats  # (n, t), d gamma / d level with the data held
    deviations: Floats  # (n, r), draws of gamma - mean at fixed levels
    own_precision: Floats  # (n,), of priors and direct statements in the variances

    def of_first(self, size: int) -> CityEstimate:
        """Return the estimate of the first connectors alone."""
        cut = ("error", "variance", "sensitivity", "deviations", "own_precision")
        return replace(self, **{name: getattr(self, name)[:size] for name in cut})


def level_coupling(system: CitySystem) -> tuple[Floats, Floats]:
    """Return the normal matrix between gamma and levels, (n, t), and among levels, (t, t)."""
    g, h = system.model_precision.size, system.converter_precision.size
    coupling = np.zeros((system.size, system.levels))
    coupling[np.arange(system.size), system.model] = -system.prior_precision
    priors = sum_by_row(system.model, system.prior_precision, size=g)
    converters = np.diag(system.converter_precision)
    for feeder in system.feeders:
        known = feeder.member >= 0
        lossy = (feeder.converter[..., None] == np.arange(h)).astype(np.float64)
        product = feeder.precision @ lossy
        coupling[feeder.member[known], g : g + h] += product[known]
        converters += np.einsum("bqh,bqk->hk", lossy, product)
    coupling[:, g + h :], sessions = session_coupling(system.graph)
    own = np.zeros((system.levels, system.levels))
    own[:g, :g] = np.diag(system.model_precision + priors)
    own[g : g + h, g : g + h] = converters
    own[g + h :, g + h :] = sessions + np.diag(LEVEL_PRECISION)
    return coupling, own


def normal_product(system: CitySystem, error: Floats) -> Floats:
    """Return the normal matrix of gamma times values (n, r), the levels held."""
    out = error_product(system.graph, error)
    out += (system.direct_precision + system.prior_precision)[:, None] * error
    for feeder in system.feeders:
        feeder.add_product(feeder.precision, error, out=out)
    return out


def right_hand_side(system: CitySystem) -> tuple[Floats, Floats]:
    """Return the scores: shapes (n,) and (t,)."""
    out = system.graph.score + system.direct_score
    converter = system.converter_precision * system.converter_mean
    for feeder in system.feeders:
        known = feeder.member >= 0
        out[feeder.member[known]] += feeder.score[known]
        lossy = feeder.converter >= 0
        converter += sum_by_row(feeder.converter[lossy], feeder.score[lossy], size=converter.size)
    zero = np.zeros(system.model_precision.size)
    return out, np.concatenate(
        [zero, converter, system.graph.level_score + LEVEL_PRECISION * LEVEL_MEAN]
    )


@dataclass(frozen=True)
class _Preconditioner:
    system: CitySystem
    inverses: tuple[Floats, ...]
    lone: Floats  # 1 / H_ii of connectors under no feeder, 0 of the others

    def apply(self, values: Floats) -> Floats:
        """Return the block-diagonal inverse times values (n, r)."""
        out = self.lone[:, None] * values
        for feeder, inverse in zip(self.system.feeders, self.inverses, strict=True):
            feeder.add_product(inverse, values, out=out)
        return np.asarray(out)

    def conditional_variance(self) -> Floats:
        """Return the variance of each gamma given all outside its block, shape (n,)."""
        out = self.lone.copy()
        for feeder, inverse in zip(self.system.feeders, self.inverses, strict=True):
            known = feeder.member >= 0
            out[feeder.member[known]] = np.diagonal(inverse, axis1=1, axis2=2)[known]
        return np.asarray(out)


def block_inverses(system: CitySystem) -> _Preconditioner:
    """Return the inverse of the normal matrix's diagonal blocks, one a feeder."""
    own = system.graph.own + system.direct_precision + system.prior_precision
    inverses, lone = [], 1.0 / own
    for feeder in system.feeders:
        known = feeder.member >= 0
        lone[feeder.member[known]] = 0.0
        full = feeder.precision.copy()
        index = np.arange(full.shape[1])
        full[:, index, index] += np.where(known, own[feeder.member], 1.0)
        inverses.append(np.asarray(np.linalg.inv(full), dtype=np.float64))
    return _Preconditioner(system, tuple(inverses), lone)


def solved(
    system: CitySystem,
    blocks: _Preconditioner,
    right: Floats,
    *,
    start: Floats | None = None,
    tolerance: float,
) -> Floats:
    """Return H^-1 times right-hand sides (n, r) by preconditioned conjugate gradients.

    A few columns at a time, in threads. Every column has its own step lengths; a group ends when
    all its residuals are below ``tolerance`` of the right-hand sides, wherever it started. Source:
    Golub, Van Loan, Matrix Computations, 4th ed., algorithm 11.5.1.
    """
    start = np.zeros_like(right) if start is None else start
    parts = [
        tuple(
            np.ascontiguousarray(values[:, begin : begin + COLUMNS_AT_ONCE])
            for values in (right, start)
        )
        for begin in range(0, right.shape[1], COLUMNS_AT_ONCE)
    ]
    return np.concatenate(
        in_threads(lambda part: _solved(system, blocks, *part, tolerance=tolerance), parts), axis=1
    )


def _solved(
    system: CitySystem,
    blocks: _Preconditioner,
    right: Floats,
    x: Floats,
    *,
    tolerance: float,
) -> Floats:
    residual = right.copy()
    z = blocks.apply(residual)
    goal = tolerance**2 * np.maximum(np.einsum("nr,nr->r", residual, z), 1e-300)
    if x.any():
        residual -= normal_product(system, x)
        z = blocks.apply(residual)
    direction = z.copy()
    old = np.einsum("nr,nr->r", residual, z)
    for _ in range(MAX_STEPS):
        if np.all(old <= goal):
            break
        product = normal_product(system, direction)
        curve = np.einsum("nr,nr->r", direction, product)
        step = np.where(curve > 0, old / np.where(curve > 0, curve, 1.0), 0.0)
        x += step * direction
        product *= step
        residual -= product
        z = blocks.apply(residual)
        new = np.einsum("nr,nr->r", residual, z)
        direction *= np.where(old > 0, new / np.where(old > 0, old, 1.0), 0.0)
        direction += z
        old = new
    return x


def _square_roots(feeder: FeederEvidence) -> Floats:
    """Return L with L L' = Q; what is added to the diagonal keeps singular ones factorable."""
    matrix = feeder.precision.copy()
    index = np.arange(matrix.shape[1])
    diagonal = matrix[:, index, index]
    matrix[:, index, index] += 1e-8 * diagonal.max(axis=1, keepdims=True) + 1e-6
    return np.asarray(np.linalg.cholesky(matrix))


def _noise(system: CitySystem, rng: np.random.Generator, *, draws: int) -> Floats:
    """Return draws from N(0, H), shape (n, draws)."""
    own = np.sqrt(system.direct_precision + system.prior_precision)
    out = own[:, None] * rng.standard_normal((system.size, draws))
    for feeder in system.feeders:
        known = feeder.member >= 0
        root = _square_roots(feeder)
        noise = root @ rng.standard_normal((*feeder.member.shape, draws))
        out[feeder.member[known]] += noise[known]
    count = system.graph.weights.nnz + system.graph.nodes
    for begin in range(0, draws, DRAWS_AT_ONCE):
        width = min(DRAWS_AT_ONCE, draws - begin)
        normal = rng.standard_normal((count, width))
        out[:, begin : begin + width] += score_draws(system.graph, normal)
    return np.asarray(out)


def estimate_city(
    system: CitySystem,
    *,
    draws: int,
    seed: int,
    tolerance: float = TOLERANCE,
    start: CityEstimate | None = None,
) -> CityEstimate:
    """Return the posterior mean and variance of every connector and level.

    Args:
        system: the evidence.
        draws: Monte Carlo draws for the variances.
        seed: of the draws; the same seed gives the same result to the last bit.
        tolerance: of the conjugate gradients.
        start: estimate of the round before with as many draws, where they begin.

    Equation: with U = H^-1 B (B: coupling of gamma and levels) and C = (T - B^T U)^-1, the levels
    are C (b_t - U^T b), gamma = H^-1 b - U level, and V_ii = (H^-1)_ii + (U C U^T)_ii.
    """
    blocks = block_inverses(system)
    t = system.levels
    coupling, own = level_coupling(system)
    score, level_score = right_hand_side(system)
    rng = np.random.default_rng(seed)
    noise = _noise(system, rng, draws=draws)
    used = np.flatnonzero(np.abs(coupling).sum(axis=0) > 0)
    right = np.concatenate([score[:, None], coupling[:, used]], axis=1)
    near = None
    if start is not None:
        # The solution at levels 0: they are put in again below.
        at_zero = start.error - start.sensitivity @ start.level
        near = np.concatenate([at_zero[:, None], -start.sensitivity[:, used]], axis=1)
    x = solved(system, blocks, right, start=near, tolerance=tolerance)
    if tolerance > MEAN_TOLERANCE:
        x[:, :1] = solved(system, blocks, right[:, :1], start=x[:, :1], tolerance=MEAN_TOLERANCE)
    sensitivity = np.zeros((system.size, t))
    sensitivity[:, used] = -x[:, 1:]
    matrix = own + coupling.T @ sensitivity
    matrix = 0.5 * (matrix + matrix.T)
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(matrix), 1e-12))
    covariance = np.linalg.inv(matrix * scale[:, None] * scale + 1e-13 * np.eye(t))
    covariance = covariance * scale[:, None] * scale
    level = covariance @ (level_score + sensitivity.T @ score)
    deviations = solved(
        system,
        blocks,
        noise,
        start=None if start is None else start.deviations,
        tolerance=max(tolerance, DRAW_TOLERANCE),
    )
    given = deviations - blocks.apply(noise)
    variance = blocks.conditional_variance() + np.mean(given**2, axis=1)
    variance += ((sensitivity @ covariance) * sensitivity).sum(axis=1)
    return CityEstimate(
        error=x[:, 0] + sensitivity @ level,
        variance=variance,
        level=level,
        level_covariance=covariance,
        sensitivity=sensitivity,
        deviations=deviations,
        own_precision=system.direct_precision + system.prior_precision,
    )


def swept(system: CitySystem, before: CityEstimate) -> CityEstimate:
    """Return the estimate after each block was solved once more, all others and the levels held.

    What a block then is follows from its own evidence and from what is given of the others: nothing
    of it depends on how the whole city was solved, nor any bit on what stands beside it in memory.
    So `excerpt` can compute it again. Where the solution rests it moves nothing.

    Equation: H = D + V, D the blocks; gamma = D^-1 (b - B l - V gamma), U likewise, and of the
    draws the conditional mean -D^-1 V x.
    """
    blocks = block_inverses(system)
    coupling, _ = level_coupling(system)
    score, _ = right_hand_side(system)
    held = np.concatenate([before.error[:, None], before.sensitivity, before.deviations], axis=1)
    outside = error_product(system.graph, held) - system.graph.own[:, None] * held
    levels = before.sensitivity.shape[1]
    right = np.concatenate(
        [(score - (coupling * before.level).sum(axis=1))[:, None], -coupling], axis=1
    )
    known = blocks.apply(
        np.concatenate([right - outside[:, : 1 + levels], -outside[:, 1 + levels :]], axis=1)
    )
    sensitivity, given = known[:, 1 : 1 + levels].copy(), known[:, 1 + levels :].copy()
    variance = blocks.conditional_variance() + np.mean(given**2, axis=1)
    variance += (by_row(sensitivity, before.level_covariance) * sensitivity).sum(axis=1)
    return replace(before, error=known[:, 0].copy(), sensitivity=sensitivity, variance=variance)


def moved_mean(system: CitySystem, before: CityEstimate, *, tolerance: float) -> CityEstimate:
    """Return the posterior mean, with the variances of an estimate of nearly the same system.

    One right-hand side in place of those of all levels and draws. Equation: gamma at the levels
    held, H^-1 (b - B l); then the levels move along C r, r the residual of their equations, and
    gamma with them, U and C as they were, as far as the least squares fall. r is 0 where the mean
    is, whatever U and C.

    Args:
        system: the evidence.
        before: the estimate near by.
        tolerance: of the conjugate gradients.
    """
    coupling, own = level_coupling(system)
    score, level_score = right_hand_side(system)
    given = solved(
        system,
        block_inverses(system),
        (score - coupling @ before.level)[:, None],
        start=before.error[:, None],
        tolerance=tolerance,
    )[:, 0]
    left = level_score - own @ before.level - coupling.T @ given
    away = before.level_covariance @ left
    drawn = before.sensitivity @ away
    curve = float(drawn @ normal_product(system, drawn[:, None])[:, 0])
    curve += float(away @ (2.0 * (coupling.T @ drawn) + own @ away))
    step = float(away @ left) / curve if curve > 0 else 0.0
    now = system.direct_precision + system.prior_precision
    # What is stated of a connector alone changes its variance by so much if nothing else does.
    wider = np.maximum(1.0 + before.variance * (now - before.own_precision), LEAST_CHANGE)
    return replace(
        before,
        error=given + step * drawn,
        variance=before.variance / wider,
        level=before.level + step * away,
        own_precision=now,
    )


def own_evidence(
    estimate: CityEstimate, *, model: Ints, prior_precision: Floats
) -> tuple[Floats, Floats]:
    """Return a connector's estimate and variance by its data alone, shapes (n,).

    The prior gamma_i ~ N(lambda_g, s_i^2) is divided out again, so that no offender is shrunk
    towards the good ones; other connectors keep theirs. Leaving out the statement a = gamma_i -
    lambda_g = 0 with variance s^2: with v = Var(a), c = Cov(gamma_i, a), d = s^2 - v:
    gamma' = gamma + c a / d, V' = V + c^2 / d. Variance infinite where the data say nothing.
    """
    # Row by row, so that no bit depends on which connectors stand beside one.
    shared = (estimate.sensitivity * estimate.level_covariance.T[model]).sum(axis=1)
    own = estimate.level_covariance[model, model]
    variance_a = estimate.variance - 2.0 * shared + own
    covariance = estimate.variance - shared
    left = 1.0 / prior_precision - variance_a
    informed = left > 0.02 / prior_precision
    safe = np.where(informed, left, 1.0)
    away = estimate.error - estimate.level[model]
    error = np.where(informed, estimate.error + covariance * away / safe, np.nan)
    variance = np.where(informed, estimate.variance + covariance**2 / safe, np.inf)
    return error, variance
