"""Rendering of pages: templates with the visitor's language, theme, zone and rights."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from chargewatch import __version__
from chargewatch.api.addresses import asked_address, asked_path
from chargewatch.api.context import COOKIE, service_of
from chargewatch.domain.verdict import TIER_ORDER
from chargewatch.supervision.accounts import Account
from chargewatch.web.assets import integrity, static_url
from chargewatch.web.finding import finding_words, signed_words
from chargewatch.web.formats import Formats
from chargewatch.web.interval_bar import interval_bar
from chargewatch.web.language import LANGUAGES, Translator, choose_language
from chargewatch.web.security import form_token
from chargewatch.web.site import SECTION_GROUPS

LANGUAGE_COOKIE = "chargewatch_language"
THEME_COOKIE = "chargewatch_theme"
THEMES = ("auto", "light", "dark")

TIER_MARKS = {"red": "▲", "orange": "◆", "yellow": "●", "grey": "○", "green": "✓"}
"""A shape for every tier: a state is never told by its colour alone."""

SEVERITY_MARKS = {"severe": "▲", "mild": "●", "info": "○"}


def _address(path: str, **parameters: Any) -> str:
    """Return an address with the parameters that are not empty."""
    pairs: list[tuple[str, str]] = []
    for name, value in parameters.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        pairs.extend((name, str(item)) for item in values if item not in (None, "", False))
    return path + ("?" + urlencode(pairs) if pairs else "")


def _attribute(value: Any) -> str:
    """Return JSON for a data attribute; the template escapes it."""
    return orjson.dumps(value).decode()


def _pretty(value: Any) -> str:
    """Return JSON for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _history_point(row: Any) -> dict[str, Any]:
    """Return what the error chart draws of a verification."""
    return {name: row[name] for name in ("verified_on", "relative_error", "result", "certificate")}


@cache
def environment() -> Environment:
    """Return the templates; every undefined name is an error, every value is escaped."""
    found = Environment(
        loader=PackageLoader("chargewatch.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(
        static_url=static_url,
        integrity=integrity,
        interval_bar=interval_bar,
        address=_address,
        languages=LANGUAGES,
        section_groups=SECTION_GROUPS,
        tier_order=[tier.value for tier in TIER_ORDER],
        tier_marks=TIER_MARKS,
        severity_marks=SEVERITY_MARKS,
        finding_words=finding_words,
        signed_words=signed_words,
        version=__version__,
    )
    found.filters["path"] = lambda text: quote(str(text), safe="")
    found.filters["attribute"] = _attribute
    found.filters["pretty"] = _pretty
    found.filters["history_point"] = _history_point
    return found


def language_of(request: Request) -> str:
    """Return the language in which to answer a request."""
    return choose_language(
        request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", "")
    )


def formats_of(request: Request) -> Formats:
    """Return how figures are written for the visitor."""
    service = service_of(request)
    return Formats(
        t=Translator(language_of(request)),
        zone=service.settings.zone,
        currency=service.settings.currency,
        now=service.clock(),
    )


def render(
    request: Request,
    template: str,
    *,
    account: Account | None,
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """Return a page."""
    formats = formats_of(request)
    theme = request.cookies.get(THEME_COOKIE, "auto")
    session = request.cookies.get(COOKIE)
    html = environment().get_template(template).render(
        t=formats.t,
        f=formats,
        language=formats.t.language,
        theme=theme if theme in THEMES else "auto",
        account=account,
        here=asked_address(request),
        path=asked_path(request),
        logout_token=form_token(session) if session else "",
        **values,
    )  # fmt: skip
    response = HTMLResponse(html, status_code=status)
    response.headers["content-language"] = formats.t.language
    response.headers["vary"] = "Accept-Language, Cookie"
    return response
