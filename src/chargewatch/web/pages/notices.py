"""What one is told, how one wishes to be told, what changed, and programs that are told."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.errors import ApiError
from chargewatch.api.notices import find_brief, stop_webhook, told_refusals
from chargewatch.api.piles import BeforeId
from chargewatch.storage.office import notices as rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.notices import sending
from chargewatch.supervision.notices.kinds import FOR_PROGRAMS, kinds_for
from chargewatch.supervision.notices.wishes import WISH_LANGUAGES, Wish, set_wish, wish_of
from chargewatch.supervision.permissions import Permission
from chargewatch.web.language import Translator
from chargewatch.web.mails import brief_lines, sentence
from chargewatch.web.pages.profile import Owner
from chargewatch.web.render import language_of, render
from chargewatch.web.security import read_own_form

router = APIRouter()

BriefReader = Annotated[Account, Depends(permitted(Permission.SEE_BRIEF, require_visitor))]
HookReader = Annotated[Account, Depends(permitted(Permission.SEE_WEBHOOKS, require_visitor))]
HookManager = Annotated[Account, Depends(permitted(Permission.MANAGE_WEBHOOKS, require_visitor))]


async def _page(
    request: Request,
    account: Account,
    *,
    before: int | None = None,
    wish: Wish | None = None,
    problem: str = "",
) -> Response:
    service = service_of(request)
    async with service.database.connect() as connection:
        found = await rows.own(connection, account.username, limit=PAGE_ROWS + 1, before=before)
        kept = await wish_of(connection, account)
    t = Translator(language_of(request))
    page = found[:PAGE_ROWS]
    return render(
        request,
        "notices.html",
        account=account,
        status=422 if problem else 200,
        rows=[{**row, "said": sentence(t, row["kind"], row["detail"])} for row in page],
        wish=wish or kept,
        kinds=kinds_for(account.role),
        wish_languages=WISH_LANGUAGES,
        mails=bool(service.settings.smtp_url),
        problem=problem,
        before=before,
        next_before=page[-1]["notice_id"] if len(found) > PAGE_ROWS else None,
    )


@router.get("/notices")
async def show_notices(request: Request, account: Owner, before: BeforeId = None) -> Response:
    """Show what one was told, the newest first, and how one wishes to be told."""
    return await _page(request, account, before=before)


@router.post("/notices/read")
async def read_notices(request: Request, account: Owner) -> Response:
    """Mark what was shown as read."""
    form = await read_own_form(request)
    up_to, service = form.get("up_to", ""), service_of(request)
    if up_to.isascii() and up_to.isdigit() and len(up_to) < 19:
        async with service.database.begin() as connection:
            await rows.read_all(connection, account.username, up_to=int(up_to), now=service.clock())
    return RedirectResponse("/notices", status_code=303)


@router.post("/notices/wish")
async def change_wish(request: Request, account: Owner) -> Response:
    """Keep how one wishes to be told."""
    form = await read_own_form(request)
    wanted: dict[str, Any] = {
        "mail": form.get("mail", "")[:256],
        "language": form.get("language", ""),
        "mail_kinds": tuple(k for k in kinds_for(account.role) if form.get(f"mail_{k}")),
    }
    try:
        with told_refusals():
            async with service_of(request).database.begin() as connection:
                await set_wish(connection, account, **wanted)
    except ApiError as exc:
        return await _page(request, account, wish=Wish(**wanted), problem=str(exc))
    return RedirectResponse("/notices", status_code=303)


@router.get("/brief")
async def show_brief(request: Request, account: BriefReader) -> Response:
    """Show what changed since one last said that one has seen it."""
    found = await find_brief(service_of(request), account)
    return render(
        request,
        "brief.html",
        account=account,
        brief=found,
        lines=brief_lines(Translator(language_of(request)), found),
    )


@router.post("/brief/seen")
async def see_brief(request: Request, account: BriefReader) -> Response:
    """Begin the next brief now."""
    await read_own_form(request)
    service = service_of(request)
    async with service.database.begin() as connection:
        await rows.set_seen_at(connection, account.user_id, now=service.clock())
    return RedirectResponse("/brief", status_code=303)


async def _hooks(
    request: Request, account: Account, *, status: int = 200, problem: str = "", secret: str = ""
) -> Response:
    async with service_of(request).database.connect() as connection:
        found = await rows.webhooks(connection)
    page = render(
        request,
        "webhooks.html",
        account=account,
        status=status,
        rows=found,
        kinds=FOR_PROGRAMS,
        manages=account.may(Permission.MANAGE_WEBHOOKS),
        problem=problem,
        secret=secret,
    )
    page.headers["cache-control"] = "no-store"
    return page


@router.get("/webhooks")
async def list_webhooks(request: Request, account: HookReader) -> Response:
    """Show the programs that are told."""
    return await _hooks(request, account)


@router.post("/webhooks")
async def make_webhook(request: Request, account: HookManager) -> Response:
    """Keep a program's address and show its secret, only now."""
    form, service = await read_own_form(request), service_of(request)
    try:
        with told_refusals():
            async with service.database.begin() as connection:
                _, secret = await sending.add_webhook(
                    connection,
                    account.actor,
                    label=form.get("label", "")[:200],
                    address=form.get("address", "").strip()[:2_000],
                    kinds=[kind for kind in FOR_PROGRAMS if form.get(f"kind_{kind}")],
                    now=service.clock(),
                )
    except ApiError as exc:
        return await _hooks(request, account, status=exc.status, problem=str(exc))
    return await _hooks(request, account, secret=secret)


@router.post("/webhooks/{webhook_id}/end")
async def end_webhook(request: Request, account: HookManager, webhook_id: int) -> Response:
    """End a webhook."""
    await read_own_form(request)
    await stop_webhook(service_of(request), account, webhook_id)
    return RedirectResponse("/webhooks", status_code=303)
