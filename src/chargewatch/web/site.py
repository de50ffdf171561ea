"""Every page and what is to be known of it; application, navigation and tests read it here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import quote

from chargewatch.supervision.permissions import Permission

Group = Literal["", "watch", "office", "system"]
"""What a section is for: watching the piles, the office's work, the platform itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One address that people look at.

    name: what it is called; in the navigation `nav.{name}` of the messages.
    path: as its route has it, with names in braces.
    module: the module of `chargewatch.web.pages` that answers it.
    group: the group of the navigation in which it stands; "" outside the navigation.
    public: whether it is shown without a log-in.
    whole: whether it is a page with navigation and footer; else a file.
    permission: what a visitor needs to see it, where it is not public.
    """

    name: str
    path: str
    module: str
    group: Group = ""
    public: bool = False
    whole: bool = True
    permission: Permission = Permission.SEE

    def address(self, **values: str) -> str:
        """Return the address with values for the names in the path."""
        return self.path.format_map({name: quote(text, safe="") for name, text in values.items()})

    def holds(self, path: str) -> bool:
        """Return whether a path lies in the section that this page begins."""
        return path == self.path or (self.path != "/" and path.startswith(self.path))


PAGES = (
    Page(name="overview", path="/", module="overview", group="watch"),
    Page(name="piles", path="/piles", module="piles", group="watch"),
    Page(name="piles.csv", path="/piles.csv", module="piles", whole=False),
    Page(name="pile", path="/piles/{connector}", module="pile"),
    Page(name="pile.money", path="/piles/{connector}/money", module="money"),
    Page(name="money", path="/money", module="money", group="watch"),
    Page(name="money.csv", path="/money.csv", module="money", whole=False),
    Page(name="stations", path="/stations", module="stations", group="watch"),
    Page(name="station", path="/stations/{station_id}", module="stations"),
    Page(name="signals", path="/signals", module="signals", group="watch"),
    Page(
        name="notices",
        path="/notices",
        module="notices",
        group="watch",
        permission=Permission.OWN_ACCOUNT,
    ),
    Page(name="brief", path="/brief", module="notices", permission=Permission.SEE_BRIEF),
    Page(name="inspections", path="/inspections", module="inspections", group="office"),
    Page(
        name="route",
        path="/inspections/route",
        module="inspections",
        permission=Permission.SEE_INSPECTIONS,
    ),
    Page(
        name="lots",
        path="/inspections/lots",
        module="inspections",
        permission=Permission.SEE_INSPECTIONS,
    ),
    Page(
        name="draw",
        path="/inspections/{draw_id}",
        module="draw",
        permission=Permission.SEE_INSPECTIONS,
    ),
    Page(
        name="draw's list",
        path="/inspections/{draw_id}/list.txt",
        module="draw",
        whole=False,
        permission=Permission.SEE_INSPECTIONS,
    ),
    Page(name="published", path="/published", module="published", public=True),
    Page(
        name="published draw",
        path="/published/draws/{draw_id}",
        module="published",
        public=True,
    ),
    Page(
        name="published list",
        path="/published/draws/{draw_id}/list.txt",
        module="published",
        public=True,
        whole=False,
    ),
    Page(
        name="published file",
        path="/published/draws/{draw_id}/draw.json",
        module="published",
        public=True,
        whole=False,
    ),
    Page(name="operators", path="/operators", module="operators", group="office"),
    Page(name="operator", path="/operators/{operator_id}", module="operators"),
    Page(
        name="evidence file", path="/piles/{connector}/evidence.zip", module="evidence", whole=False
    ),
    Page(name="label", path="/piles/{connector}/label", module="labels"),
    Page(name="label.svg", path="/piles/{connector}/label.svg", module="labels", whole=False),
    Page(name="labels", path="/stations/{station_id}/labels", module="labels"),
    # Before the office's page of one complaint, whose number "status" is not.
    Page(
        name="complaint status", path="/complaints/status", module="public_complaint", public=True
    ),
    Page(name="complain", path="/p/{connector}/complain", module="public_complaint", public=True),
    Page(name="public pile", path="/p/{connector}", module="public_pile", public=True),
    Page(name="check", path="/check", module="public_check", public=True),
    Page(name="complaints", path="/complaints", module="complaints", group="office"),
    Page(name="complaint", path="/complaints/{complaint_id}", module="complaints"),
    Page(name="cases", path="/cases", module="cases", group="office"),
    Page(name="case", path="/cases/{number}", module="case"),
    Page(name="case file", path="/cases/{number}/files/{file_id}", module="case", whole=False),
    Page(name="due", path="/registry/due", module="due"),
    Page(name="due.csv", path="/registry/due.csv", module="due", whole=False),
    Page(name="coverage", path="/registry/coverage", module="due"),
    Page(name="registry", path="/registry", module="registry", group="office"),
    Page(name="registry import", path="/registry/import", module="registry"),
    Page(name="registry export", path="/registry/export", module="registry", whole=False),
    Page(name="ledger export", path="/registry/ledger", module="registry", whole=False),
    Page(name="registry list", path="/registry/{list_name}", module="registry"),
    Page(name="registry row", path="/registry/{list_name}/{row_name}", module="registry"),
    Page(name="outcomes", path="/outcomes", module="outcomes", group="office"),
    Page(name="verifications", path="/verifications", module="verifications"),
    Page(name="verification_new", path="/verifications/new", module="verifications"),
    Page(name="verification", path="/verifications/{verification_id}", module="verifications"),
    Page(
        name="dcc.xml",
        path="/verifications/{verification_id}/dcc.xml",
        module="verifications",
        whole=False,
    ),
    Page(
        name="verification_file",
        path="/verifications/{verification_id}/file",
        module="verifications",
        whole=False,
    ),
    Page(name="system", path="/system", module="system", group="system"),
    Page(
        name="users",
        path="/users",
        module="users",
        group="system",
        permission=Permission.SEE_USERS,
    ),
    Page(
        name="audit",
        path="/audit",
        module="audit",
        group="system",
        permission=Permission.SEE_AUDIT,
    ),
    Page(name="jobs", path="/jobs", module="jobs", group="system", permission=Permission.SEE_JOBS),
    Page(
        name="webhooks",
        path="/webhooks",
        module="notices",
        group="system",
        permission=Permission.SEE_WEBHOOKS,
    ),
    Page(name="profile", path="/profile", module="profile", permission=Permission.OWN_ACCOUNT),
    Page(name="provider", path="/login/provider", module="sign_on", public=True, whole=False),
    Page(
        name="provider_back",
        path="/login/provider/back",
        module="sign_on",
        public=True,
        whole=False,
    ),
    Page(name="login", path="/login", module="session", public=True),
)
"""In the order of the navigation and of docs/pages.md."""

SECTION_GROUPS = tuple(
    tuple(page for page in PAGES if page.group == group) for group in get_args(Group) if group
)
"""The navigation."""


def modules() -> Iterator[str]:
    """Yield the modules of all pages, each once."""
    yield from dict.fromkeys(page.module for page in PAGES)


def is_public(path: str) -> bool:
    """Return whether a path belongs to the pages for everybody, whose errors look like them."""
    return path.startswith(("/p/", "/check", "/complaints/status"))
