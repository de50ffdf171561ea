"""Notices, briefs, and programs that are told."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Own, Service, ServiceOf, permitted
from chargewatch.api.errors import answered
from chargewatch.api.models import ERRORS
from chargewatch.api.models_notices import (
    BriefModel,
    MadeWebhook,
    NewWebhook,
    Notices,
    ReadUpTo,
    Webhooks,
    WishModel,
)
from chargewatch.api.piles import BeforeId, Limit
from chargewatch.storage.office import notices as rows
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.notices import sending
from chargewatch.supervision.notices.brief import Brief, brief_of
from chargewatch.supervision.notices.sending import NoticeError
from chargewatch.supervision.notices.wishes import set_wish, wish_of
from chargewatch.supervision.permissions import Permission

router = APIRouter(tags=["notices"])

BriefReader = Annotated[Account, Depends(permitted(Permission.SEE_BRIEF))]
WebhookReader = Annotated[Account, Depends(permitted(Permission.SEE_WEBHOOKS))]
WebhookManager = Annotated[Account, Depends(permitted(Permission.MANAGE_WEBHOOKS))]


def told_refusals() -> AbstractContextManager[None]:
    """Turn what can't be kept as asked into answers with its words."""
    return answered({NoticeError: (422, "refused")})


@router.get("/me/notices", response_class=JsonAnswer, responses={200: {"model": Notices}, **ERRORS})
async def own_notices(
    service: ServiceOf, viewer: Own, limit: Limit = 50, before: BeforeId = None
) -> JsonAnswer:
    """Answer what one was told, the newest first."""
    async with service.database.connect() as connection:
        found = await rows.own(connection, viewer.username, limit=limit + 1, before=before)
        unread = await rows.unread(connection, viewer.username)
    page = found[:limit]
    more = page[-1]["notice_id"] if len(found) > limit else None
    return JsonAnswer({"notices": rows_of(page), "unread": unread, "next_before": more})


@router.post("/me/notices/read", status_code=204, responses={**ERRORS}, summary="Mark as read")
async def read_notices(service: ServiceOf, viewer: Own, wanted: ReadUpTo) -> None:
    """Mark one's own notices as read, up to one."""
    async with service.database.begin() as connection:
        await rows.read_all(connection, viewer.username, up_to=wanted.up_to, now=service.clock())


@router.get("/me/wish", response_class=JsonAnswer, responses={200: {"model": WishModel}, **ERRORS})
async def own_wish(service: ServiceOf, viewer: Own) -> JsonAnswer:
    """Answer how one wishes to be told."""
    async with service.database.connect() as connection:
        return JsonAnswer(asdict(await wish_of(connection, viewer)))


@router.post("/me/wish", response_class=JsonAnswer, responses={200: {"model": WishModel}, **ERRORS})
async def change_wish(service: ServiceOf, viewer: Own, wanted: WishModel) -> JsonAnswer:
    """Keep how one wishes to be told."""
    with told_refusals():
        async with service.database.begin() as connection:
            kept = await set_wish(
                connection,
                viewer,
                mail=wanted.mail,
                language=wanted.language,
                mail_kinds=wanted.mail_kinds,
            )
    return JsonAnswer(asdict(kept))


async def find_brief(service: Service, account: Account) -> Brief:
    """Return what changed since somebody last looked."""
    async with service.database.connect() as connection:
        return await brief_of(
            connection,
            user_id=account.user_id,
            username=account.username,
            now=service.clock(),
            zone=service.settings.zone,
        )


@router.get("/brief", response_class=JsonAnswer, responses={200: {"model": BriefModel}, **ERRORS})
async def brief(service: ServiceOf, viewer: BriefReader) -> JsonAnswer:
    """Answer what changed since one last said that one has seen it."""
    return JsonAnswer(asdict(await find_brief(service, viewer)))


@router.get("/webhooks", response_class=JsonAnswer, responses={200: {"model": Webhooks}, **ERRORS})
async def list_webhooks(service: ServiceOf, viewer: WebhookReader) -> JsonAnswer:
    """Answer all webhooks, without their secrets."""
    async with service.database.connect() as connection:
        return JsonAnswer({"webhooks": rows_of(await rows.webhooks(connection))})


@router.post(
    "/webhooks", response_class=JsonAnswer, responses={200: {"model": MadeWebhook}, **ERRORS}
)
async def make_webhook(
    service: ServiceOf, manager: WebhookManager, wanted: NewWebhook
) -> JsonAnswer:
    """Keep a program's address; its secret is shown only now."""
    with told_refusals():
        async with service.database.begin() as connection:
            webhook_id, secret = await sending.add_webhook(
                connection,
                manager.actor,
                label=wanted.label,
                address=wanted.address,
                kinds=wanted.kinds,
                now=service.clock(),
            )
    return JsonAnswer(
        {"webhook_id": webhook_id, "secret": secret}, headers={"Cache-Control": "no-store"}
    )


async def stop_webhook(service: Service, account: Account, webhook_id: int) -> None:
    """Tell a program nothing more.

    Raises: ApiError 404.
    """
    with told_refusals():
        async with service.database.begin() as connection:
            await sending.end_webhook(connection, account.actor, webhook_id, now=service.clock())


@router.delete("/webhooks/{webhook_id}", status_code=204, responses={**ERRORS})
async def end_webhook(service: ServiceOf, manager: WebhookManager, webhook_id: int) -> None:
    """End a webhook."""
    await stop_webhook(service, manager, webhook_id)
