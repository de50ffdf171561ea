"""Who may do what: one table, that every route and every page names a row of."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a user is here for."""

    ADMINISTRATOR = "administrator"
    SUPERVISOR = "supervisor"
    INSPECTOR = "inspector"
    OPERATOR = "operator"
    AUDITOR = "auditor"


class Permission(StrEnum):
    """Something that may be done."""

    OWN_ACCOUNT = "own_account"
    """Look after one's own password, second factor and tokens."""
    SEE = "see"
    """Piles, stations, signals, runs and the ledger, an operator's user those of its operator."""
    ENTER_VERIFICATIONS = "enter_verifications"
    """Enter and withdraw verifications."""
    DECLARE_CHANGES = "declare_changes"
    """Declare works on piles by hand, an operator's user on those of its operator."""
    SEE_AUDIT = "see_audit"
    """The audit trail."""
    SEE_USERS = "see_users"
    """Who has an account, with which role."""
    MANAGE_USERS = "manage_users"
    """Make, change and disable users."""
    GRADE_OPERATORS = "grade_operators"
    """Draft and publish credit grades, say whether commitments were kept."""
    COMMIT = "commit"
    """Record what an operator promises of itself, an operator's user of its own."""
    SEE_JOBS = "see_jobs"
    """What is done in the background."""
    SEE_BRIEF = "see_brief"
    """What changed in the city and the office since one last looked."""
    SEE_WEBHOOKS = "see_webhooks"
    """Which programs are told of what."""
    MANAGE_WEBHOOKS = "manage_webhooks"
    """Let programs be told."""
    MANAGE_JOBS = "manage_jobs"
    """Try a failed job again."""
    ANSWER_COMPLAINTS = "answer_complaints"
    """Accept, refuse, answer and end complaints; see whom to tell."""
    SEE_INSPECTIONS = "see_inspections"
    """Draws, inspections that are planned, lots and routes; an operator's are public when done."""
    RUN_DRAWS = "run_draws"
    """Freeze, publish, throw, draw and open; cancel inspections."""
    RECUSE = "recuse"
    """Say whose piles an inspector must not inspect: one's own, or with run_draws anybody's."""
    WORK_CASES = "work_cases"
    """Open cases and take their steps; which role may take which, supervision.cases.steps says."""
    REPLY_TO_CASES = "reply_to_cases"
    """Reply and object to the cases of one's own operator."""
    EDIT_REGISTRY = "edit_registry"
    """Import and edit the registry, tell the steps of what is due."""


READS = frozenset(
    {
        Permission.SEE,
        Permission.SEE_AUDIT,
        Permission.SEE_USERS,
        Permission.SEE_JOBS,
        Permission.SEE_INSPECTIONS,
        Permission.SEE_BRIEF,
        Permission.SEE_WEBHOOKS,
    }
)
"""What changes nothing: all that a token for reading may do."""

_EVERYBODY = frozenset({Permission.OWN_ACCOUNT, Permission.SEE})

PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    # Nobody of the office speaks for an operator.
    Role.ADMINISTRATOR: frozenset(Permission) - {Permission.REPLY_TO_CASES},
    Role.SUPERVISOR: _EVERYBODY
    | {
        Permission.SEE_USERS,
        Permission.SEE_JOBS,
        Permission.WORK_CASES,
        Permission.SEE_BRIEF,
        Permission.SEE_WEBHOOKS,
        Permission.GRADE_OPERATORS,
        Permission.COMMIT,
        Permission.ANSWER_COMPLAINTS,
        Permission.SEE_INSPECTIONS,
        Permission.RUN_DRAWS,
        Permission.RECUSE,
        Permission.EDIT_REGISTRY,
        Permission.ENTER_VERIFICATIONS,
        Permission.DECLARE_CHANGES,
    },
    Role.INSPECTOR: _EVERYBODY
    | {
        Permission.ENTER_VERIFICATIONS,
        Permission.DECLARE_CHANGES,
        Permission.WORK_CASES,
        Permission.SEE_BRIEF,
        Permission.SEE_INSPECTIONS,
        Permission.RECUSE,
    },
    Role.OPERATOR: _EVERYBODY
    | {Permission.REPLY_TO_CASES, Permission.COMMIT, Permission.DECLARE_CHANGES},
    Role.AUDITOR: READS | {Permission.OWN_ACCOUNT},
}
"""The table. Nobody has a permission that does not stand here."""

ALWAYS_TWO_FACTORS: Mapping[str, frozenset[Role]] = {
    "optional": frozenset(),
    "supervisors": frozenset({Role.ADMINISTRATOR, Role.SUPERVISOR}),
    "everybody": frozenset(Role),
}
"""Who must have a second factor, by the value of CHARGEWATCH_SECOND_FACTOR."""
