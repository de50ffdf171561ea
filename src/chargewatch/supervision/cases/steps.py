"""The steps of a case: from which state to which, who may take them, and what they need.

Pure: the database is asked and changed in `working`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from chargewatch.supervision.audit import Actor
from chargewatch.supervision.cases.model import (
    Case,
    CaseConflictError,
    CaseRoleError,
    CaseState,
    EntryKind,
)
from chargewatch.supervision.permissions import Role

_ANY_OPEN = frozenset(CaseState) - {CaseState.CLOSED}


class StepName(StrEnum):
    """What can be done with a case."""

    ASSIGN = "assign"
    RELEASE = "release"
    INSPECT = "inspect"
    ASK = "ask"
    RESUME = "resume"
    DEADLINE = "deadline"
    CLOSE = "close"
    REOPEN = "reopen"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        sources: states in which it can be taken.
        target: the state after it; None: as it was.
        kind: what the case's entry of it is called.
        by_owner: whether the inspector who owns the case may take it; else supervisors and
            administrators only.
        needs_reason: whether it is taken with a reason only.
        needs_owner: whether somebody must own the case.
    """

    sources: frozenset[CaseState]
    target: CaseState | None
    kind: EntryKind
    by_owner: bool = False
    needs_reason: bool = False
    needs_owner: bool = False


STEPS: Mapping[StepName, Step] = {
    # An inspector may take a case that nobody owns; a case that is taken from somebody needs a
    # reason. Both are checked in `check_owner`.
    StepName.ASSIGN: Step(
        sources=_ANY_OPEN, target=CaseState.ASSIGNED, kind=EntryKind.ASSIGNED, by_owner=True
    ),
    StepName.RELEASE: Step(
        sources=frozenset({CaseState.ASSIGNED, CaseState.INSPECTING}),
        target=CaseState.OPEN,
        kind=EntryKind.RELEASED,
        by_owner=True,
        needs_reason=True,
    ),
    StepName.INSPECT: Step(
        sources=frozenset({CaseState.ASSIGNED, CaseState.WAITING}),
        target=CaseState.INSPECTING,
        kind=EntryKind.INSPECTING,
        by_owner=True,
        needs_owner=True,
    ),
    StepName.ASK: Step(
        sources=frozenset({CaseState.ASSIGNED, CaseState.INSPECTING}),
        target=CaseState.WAITING,
        kind=EntryKind.ASKED,
        by_owner=True,
        needs_reason=True,
    ),
    StepName.RESUME: Step(
        sources=frozenset({CaseState.INSPECTING, CaseState.WAITING}),
        target=CaseState.ASSIGNED,
        kind=EntryKind.RESUMED,
        by_owner=True,
        needs_reason=True,
        needs_owner=True,
    ),
    # Moving a deadline that was set needs a reason: `working` knows whether it was.
    StepName.DEADLINE: Step(sources=_ANY_OPEN, target=None, kind=EntryKind.DEADLINE),
    StepName.CLOSE: Step(
        sources=_ANY_OPEN, target=CaseState.CLOSED, kind=EntryKind.CLOSED, needs_reason=True
    ),
    # To whom it belonged, or to nobody: `target_of` says which.
    StepName.REOPEN: Step(
        sources=frozenset({CaseState.CLOSED}),
        target=CaseState.OPEN,
        kind=EntryKind.REOPENED,
        needs_reason=True,
    ),
}
"""The table. What does not stand here can't be done."""

MANAGERS = frozenset({Role.ADMINISTRATOR, Role.SUPERVISOR})
WORKERS = MANAGERS | {Role.INSPECTOR}
"""Who may own a case."""


def is_manager(actor: Actor) -> bool:
    """Whether somebody decides on cases: by its role, or at the command line, which has none."""
    return actor.role == "" or actor.role in MANAGERS


def may_take(case: Case, name: StepName, actor: Actor) -> bool:
    """Whether somebody's role lets it take a step of a case, whatever its state."""
    if is_manager(actor):
        return True
    if actor.role not in WORKERS or not STEPS[name].by_owner:
        return False
    takes_free_one = name is StepName.ASSIGN and case.owner is None
    return takes_free_one or case.owner == actor.name


def possible_steps(case: Case, actor: Actor) -> list[StepName]:
    """Return the steps that somebody can take now."""
    return [
        name
        for name, step in STEPS.items()
        if case.state in step.sources
        and may_take(case, name, actor)
        and not (step.needs_owner and case.owner is None)
    ]


def check_step(case: Case, name: StepName, actor: Actor) -> Step:
    """Return a step that somebody may take of a case as it stands.

    Raises: CaseConflictError for its state, CaseRoleError for who asks; both say what is possible.
    """
    step = STEPS[name]
    if not may_take(case, name, actor):
        whose = "an inspector takes the steps of the cases that it owns" if step.by_owner else ""
        raise CaseRoleError(
            f"case {case.number}: {name} is for supervisors and administrators"
            + (f"; {whose}" if whose else "")
        )
    if case.state not in step.sources:
        possible = ", ".join(possible_steps(case, actor)) or "nothing"
        raise CaseConflictError(
            f"case {case.number} is {case.state}: {name} is not possible now; possible: {possible}"
        )
    if step.needs_owner and case.owner is None:
        raise CaseConflictError(f"case {case.number} has no owner: assign it first")
    return step


def check_owner(case: Case, owner: str, actor: Actor) -> None:
    """Let pass who may make somebody the owner of a case.

    Raises: CaseRoleError, CaseConflictError.
    """
    if not is_manager(actor) and owner != actor.name:
        raise CaseRoleError(
            f"case {case.number}: an inspector takes a case itself; supervisors assign others"
        )
    if case.owner == owner:
        raise CaseConflictError(f"case {case.number} belongs to {owner} already")


def target_of(case: Case, name: StepName) -> CaseState:
    """Return the state of a case after a step."""
    target = STEPS[name].target
    if target is None or (name is StepName.ASSIGN and case.state is not CaseState.OPEN):
        return case.state
    if name is StepName.REOPEN and case.owner is not None:
        return CaseState.ASSIGNED
    return target
