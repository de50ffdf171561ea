"""The application: the API under /api/v1 and the pages beside it."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

import asyncpg
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from chargewatch import __version__
from chargewatch.api.addresses import EncodedSlashes, asked_path, refuse_nul
from chargewatch.api.context import Intake, Service
from chargewatch.api.errors import ApiError, error_answer
from chargewatch.api.routes import API_PREFIX, api_router
from chargewatch.errors import ChargewatchError
from chargewatch.settings import Settings
from chargewatch.storage.database import Database
from chargewatch.web import site
from chargewatch.web.assets import static_folder
from chargewatch.web.pages.session import KEPT_FOR_S, redirect_to_log_in
from chargewatch.web.render import render
from chargewatch.web.security import BodyLimit, HeadRequests, SecurityHeaders
from chargewatch.web.uploads import most_bytes_of

log = logging.getLogger(__name__)


class PinnedStaticFiles(StaticFiles):
    """Static files; an address with a hash of its content may be kept for a year."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """Return the file with its caching header."""
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        scope = args[2] if len(args) > 2 else kwargs["scope"]
        pinned = isinstance(scope, dict) and b"v=" in scope.get("query_string", b"")
        lifetime = f"public, max-age={KEPT_FOR_S}, immutable" if pinned else "no-cache"
        response.headers["cache-control"] = lifetime
        return response


def _answer_error(
    request: Request, status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    if asked_path(request).startswith(API_PREFIX):
        return error_answer(status, code, message, headers=headers)
    if status == 401:
        return redirect_to_log_in(request)
    if code == "set_up_second_factor":
        return RedirectResponse("/profile", status_code=303)
    template = "public_error.html" if site.is_public(request.url.path) else "error.html"
    page = render(
        request, template, account=None, status=status, code=code, message=message,
        http_status=status,
    )  # fmt: skip
    page.headers.update(headers or {})
    return page


def _install_error_handlers(app: FastAPI) -> None:
    async def on_api_error(request: Request, exc: Exception) -> Response:
        if not isinstance(exc, ApiError):
            raise exc
        return _answer_error(request, exc.status, exc.code, str(exc), exc.headers)

    async def on_http_error(request: Request, exc: Exception) -> Response:
        status = exc.status_code if isinstance(exc, HTTPException) else 500
        words = {404: "nothing is at this address", 405: "this address takes another method"}
        message = f"{words.get(status, 'the request was refused')}: {asked_path(request)}"
        headers = dict(getattr(exc, "headers", None) or {})
        return _answer_error(request, status, f"http_{status}", message, headers)

    async def on_invalid_request(request: Request, exc: Exception) -> Response:
        errors = exc.errors() if isinstance(exc, RequestValidationError) else []
        first = errors[0] if errors else {"loc": ("request",), "msg": "invalid"}
        place = ".".join(str(part) for part in first["loc"])
        return _answer_error(request, 422, "invalid_request", f"{place}: {first['msg']}")

    async def on_own_error(request: Request, exc: Exception) -> Response:
        log.warning("request_failed path=%s error=%s", asked_path(request), exc)
        return _answer_error(request, 500, "failed", str(exc))

    async def on_database_error(request: Request, exc: Exception) -> Response:
        log.error("database_failed path=%s error=%s", asked_path(request), exc)
        message = "the database does not answer: try again in a minute"
        return _answer_error(request, 503, "database_down", message, {"Retry-After": "30"})

    async def on_client_gone(request: Request, exc: Exception) -> Response:
        # It went away before its request was complete: nobody is there to read an answer.
        log.info("client_gone path=%s", asked_path(request))
        return Response(status_code=400)

    app.add_exception_handler(ClientDisconnect, on_client_gone)
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(ChargewatchError, on_own_error)
    for error in (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        app.add_exception_handler(error, on_database_error)


def _api() -> FastAPI:
    """Return an application with the routes of the API and nothing else."""
    app = FastAPI(
        title="chargewatch",
        version=__version__,
        summary="Metering supervision of EV charging piles",
        openapi_url=f"{API_PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(refuse_nul)],
    )
    app.include_router(api_router())
    return app


def api_document() -> dict[str, Any]:
    """Return the API's OpenAPI document; needs no settings and no database."""
    return _api().openapi()


def create_app(settings: Settings, database: Database, *, intake: Intake | None = None) -> FastAPI:
    """Return the application.

    Args:
        settings: time zone, currency, cookies.
        database: an open database with the newest schema; stays the caller's to close.
        intake: takes messages of POST /api/v1/telemetry; None: that door is closed.
    """
    app = _api()
    app.state.service = Service(settings, database, intake)
    app.add_middleware(BodyLimit, own_limit=f"{API_PREFIX}/telemetry/", most_bytes_of=most_bytes_of)
    app.add_middleware(EncodedSlashes)
    app.add_middleware(HeadRequests)
    app.add_middleware(SecurityHeaders, secure=settings.secure_cookies)
    _install_error_handlers(app)
    for module in site.modules():
        page = import_module(f"chargewatch.web.pages.{module}")
        app.include_router(page.router, include_in_schema=False)
    app.mount("/static", PinnedStaticFiles(directory=static_folder()), name="static")

    @app.get("/favicon.ico", include_in_schema=False)
    async def favicon() -> RedirectResponse:
        return RedirectResponse("/static/mark.svg", status_code=308)

    return app
