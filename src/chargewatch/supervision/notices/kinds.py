"""What people are told of."""

from __future__ import annotations

from dataclasses import dataclass

from chargewatch.supervision.permissions import Role

_OFFICE = frozenset({Role.ADMINISTRATOR, Role.SUPERVISOR, Role.INSPECTOR, Role.AUDITOR})
_LEADS = frozenset({Role.ADMINISTRATOR, Role.SUPERVISOR})
_OPERATOR = frozenset({Role.OPERATOR})


@dataclass(frozen=True, kw_only=True)
class NoticeKind:
    """One kind of notice.

    name: as it is kept; its sentence is `notice.{name}` of the messages.
    roles: who can be told of it, and may choose to be told by mail.
    for_programs: whether webhooks and messengers may be told of it.
    """

    name: str
    roles: frozenset[Role]
    for_programs: bool = False


NOTICE_KINDS = (
    NoticeKind(name="newly_red", roles=_LEADS, for_programs=True),
    NoticeKind(name="case_assigned", roles=_OFFICE),
    NoticeKind(name="case_mentioned", roles=_OFFICE | _OPERATOR),
    NoticeKind(name="case_answered", roles=_OFFICE),
    NoticeKind(name="case_due", roles=_OFFICE),
    NoticeKind(name="case_for_operator", roles=_OPERATOR),
    NoticeKind(name="inspection_assigned", roles=_OFFICE),
    NoticeKind(name="complaint_received", roles=_LEADS, for_programs=True),
    NoticeKind(name="complaint_due", roles=_LEADS, for_programs=True),
    NoticeKind(name="verifications_due", roles=_LEADS | _OPERATOR, for_programs=True),
    NoticeKind(name="grade_published", roles=_OPERATOR, for_programs=True),
    NoticeKind(name="job_failed", roles=frozenset({Role.ADMINISTRATOR}), for_programs=True),
    NoticeKind(name="brief", roles=_LEADS),
)
"""In the order of the page Notices. A brief goes out by mail only: the page is /brief."""

FOR_PROGRAMS = tuple(kind.name for kind in NOTICE_KINDS if kind.for_programs)


def kinds_for(role: Role) -> tuple[str, ...]:
    """Return the kinds that somebody of a role can be told of."""
    return tuple(kind.name for kind in NOTICE_KINDS if role in kind.roles)
