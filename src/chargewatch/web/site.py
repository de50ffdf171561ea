"""Every page and what is to be known of it; application, navigation and tests read it here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from chargewatch.supervision.permissions import Permission


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One address that people look at.

    name: what it is called; in the navigation `nav.{name}` of the messages.
    path: as its route has it, with names in braces.
    module: the module of `chargewatch.web.pages` that answers it.
    is_section: whether it stands in the navigation.
    public: whether it is shown without a log-in.
    whole: whether it is a page with navigation and footer; else a file.
    permission: what a visitor needs to see it, where it is not public.
    """

    name: str
    path: str
    module: str
    is_section: bool = False
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
    Page(name="overview", path="/", module="overview", is_section=True),
    Page(name="piles", path="/piles", module="piles", is_section=True),
    Page(name="piles.csv", path="/piles.csv", module="piles", whole=False),
    Page(name="pile", path="/piles/{connector}", module="pile"),
    Page(name="stations", path="/stations", module="stations", is_section=True),
    Page(name="station", path="/stations/{station_id}", module="stations"),
    Page(name="signals", path="/signals", module="signals", is_section=True),
    Page(name="system", path="/system", module="system", is_section=True),
    Page(
        name="users",
        path="/users",
        module="users",
        is_section=True,
        permission=Permission.SEE_USERS,
    ),
    Page(
        name="audit",
        path="/audit",
        module="audit",
        is_section=True,
        permission=Permission.SEE_AUDIT,
    ),
    Page(name="profile", path="/profile", module="profile", permission=Permission.OWN_ACCOUNT),
    Page(name="login", path="/login", module="session", public=True),
)
"""In the order of the navigation and of docs/pages.md."""

SECTIONS = tuple(page for page in PAGES if page.is_section)


def modules() -> Iterator[str]:
    """Yield the modules of all pages, each once."""
    yield from dict.fromkeys(page.module for page in PAGES)
