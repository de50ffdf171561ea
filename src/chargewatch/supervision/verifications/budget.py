"""The expanded uncertainty of an error that was measured on site, by the GUM.

Model: e = E_x / E_ref - 1, with E_x the energy that the pile indicates and E_ref that of the
reference. What is not known of e beside its repetitions: the reference's certificate, and the steps
of both indications.
Source: JCGM 100:2008 (GUM), clauses 4, 5 and annex G; EA-4/02 M:2022 for the form of the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from chargewatch.errors import ChargewatchError

COVERAGE = 0.9545
"""Probability of the interval that an expanded uncertainty spans, that of k = 2 of a normal."""
MANY = 1e6
"""Degrees of freedom from which on Student's t is a normal distribution."""


class MeasurementError(ChargewatchError):
    """What was measured can't be, or does not carry a result."""


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """One comparison at one load, both energies in Wh."""

    indicated_wh: float
    reference_wh: float


@dataclass(frozen=True, kw_only=True)
class ReferenceUsed:
    """What the pile was compared with, as its certificate tells it.

    Attributes:
        expanded_uncertainty: relative, a fraction.
        resolution_wh: the step of its energy; 0 where it is told by pulses.
    """

    expanded_uncertainty: float
    coverage_factor: float = 2.0
    resolution_wh: float = 0.0
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One line of a budget.

    Attributes:
        kind: A by statistics, B by other means.
        standard_uncertainty: of the error, a fraction: sensitivity times that of the quantity.
        degrees_of_freedom: infinite where the figure is taken as known.
    """

    name: str
    kind: str
    standard_uncertainty: float
    degrees_of_freedom: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Result:
    """An error with its expanded uncertainty, fractions, and the budget behind it."""

    relative_error: float
    standard_uncertainty: float
    degrees_of_freedom: float
    coverage_factor: float
    components: tuple[Component, ...] = ()

    @property
    def expanded_uncertainty(self) -> float:
        """U = k u_c."""
        return self.coverage_factor * self.standard_uncertainty


def effective_degrees_of_freedom(components: Sequence[Component]) -> float:
    """Return the degrees of freedom of a combined uncertainty; infinite where all are known.

    Equation: nu = u_c^4 / sum(u_i^4 / nu_i). Source: JCGM 100:2008, G.4.1 (Welch, Satterthwaite).
    """
    total = math.fsum(each.standard_uncertainty**2 for each in components)
    loose = math.fsum(each.standard_uncertainty**4 / each.degrees_of_freedom for each in components)
    return total**2 / loose if loose > 0 else math.inf


def coverage_factor(degrees_of_freedom: float, *, probability: float = COVERAGE) -> float:
    """Return k of an interval of a probability: Student's t at the degrees below, at least 1.

    Source: JCGM 100:2008, G.3 and G.4.1 (nu is truncated to the next lower whole number).
    """
    whole = max(1.0, math.floor(min(degrees_of_freedom, MANY) + 1e-9))
    return float(student.ppf((1.0 + probability) / 2.0, whole))


def combined(relative_error: float, components: Sequence[Component]) -> Result:
    """Return an error with the uncertainty of independent components, shape ()."""
    freedom = effective_degrees_of_freedom(components)
    return Result(
        relative_error=relative_error,
        standard_uncertainty=math.sqrt(
            math.fsum(each.standard_uncertainty**2 for each in components)
        ),
        degrees_of_freedom=freedom,
        coverage_factor=coverage_factor(freedom),
        components=tuple(components),
    )


def errors_of(repetitions: Sequence[Repetition]) -> list[float]:
    """Return the relative error of each comparison.

    Raises: MeasurementError when an energy can't be one.
    """
    for each in repetitions:
        told = (each.indicated_wh, each.reference_wh)
        if not all(math.isfinite(value) for value in told) or each.reference_wh <= 0:
            raise MeasurementError("the reference's energy must be above 0: was it counting?")
        if each.indicated_wh < 0:
            raise MeasurementError("the indicated energy lies below 0: take end minus begin")
    return [each.indicated_wh / each.reference_wh - 1.0 for each in repetitions]


def spread_of(values: Sequence[float]) -> float:
    """Return the experimental standard deviation; NaN of fewer than two values."""
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def pooled(samples: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the pooled standard deviation of several loads and its degrees of freedom.

    Equation: s_p^2 = sum((n_i - 1) s_i^2) / sum(n_i - 1). NaN and 0 where no load was repeated.
    Source: EA-4/02 M:2022, 3.2.2.
    """
    repeated = [values for values in samples if len(values) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    if not freedom:
        return math.nan, 0
    squares = math.fsum((len(values) - 1) * spread_of(values) ** 2 for values in repeated)
    return math.sqrt(squares / freedom), freedom


def point_result(
    repetitions: Sequence[Repetition],
    *,
    reference: ReferenceUsed,
    resolution_wh: float,
    spread: float,
    freedom: float,
) -> Result:
    """Return the error at one load with its budget.

    Args:
        repetitions: at least one.
        reference: with what was compared.
        resolution_wh: the step of the pile's indication; an energy is a difference of two.
        spread: standard deviation of one comparison, a fraction, pooled over loads.
        freedom: its degrees of freedom.

    Raises: MeasurementError for energies that can't be.
    Equation: u(step) = d / sqrt(6), the difference of two rectangular readings; all of it divided
        by the energy, and by sqrt(n) but for the certificate, which all comparisons share.
    """
    errors = errors_of(repetitions)
    count = len(errors)
    mean = math.fsum(errors) / count
    energy = math.fsum(each.reference_wh for each in repetitions) / count
    gain = 1.0 + mean
    step = math.sqrt(6.0 * count) * energy
    certificate = reference.expanded_uncertainty / reference.coverage_factor
    return combined(
        mean,
        (
            Component(
                name="repeatability",
                kind="A",
                standard_uncertainty=spread / math.sqrt(count),
                degrees_of_freedom=freedom,
            ),
            Component(name="certificate", kind="B", standard_uncertainty=gain * certificate),
            Component(name="resolution", kind="B", standard_uncertainty=resolution_wh / step),
            Component(
                name="reference_resolution",
                kind="B",
                standard_uncertainty=gain * reference.resolution_wh / step,
            ),
        ),
    )


def overall_result(results: Sequence[Result]) -> Result:
    """Return the error of a pile from those at several loads, as an anchor of later runs.

    The mean, with what the loads share (the certificate) counted in full, what is each load's own
    divided, and the spread between loads as another component: a pile whose error depends on load
    is known less well by one number.

    Args:
        results: of `point_result`, at least one.
    """
    count = len(results)
    errors = [each.relative_error for each in results]
    names = ("repeatability", "resolution", "reference_resolution")
    parts = {
        name: [c for each in results for c in each.components if c.name == name] for name in names
    }
    own = [
        Component(
            name=name,
            kind=some[0].kind,
            standard_uncertainty=math.sqrt(math.fsum(c.standard_uncertainty**2 for c in some))
            / count,
            degrees_of_freedom=min(c.degrees_of_freedom for c in some),
        )
        for name, some in parts.items()
        if some
    ]
    # Of results that a laboratory told without a budget all may be shared.
    shared = [
        math.fsum(c.standard_uncertainty for c in each.components if c.name == "certificate")
        if each.components
        else each.standard_uncertainty
        for each in results
    ]
    components = [
        *own,
        Component(name="certificate", kind="B", standard_uncertainty=math.fsum(shared) / count),
    ]
    if count > 1:
        components.append(
            Component(
                name="loads",
                kind="A",
                standard_uncertainty=spread_of(errors) / math.sqrt(count),
                degrees_of_freedom=count - 1,
            )
        )
    return combined(math.fsum(errors) / count, components)
