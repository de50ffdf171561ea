"""Evidence files of flags: which there are, the files, and a wish for the next run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Service, ServiceOf, Viewer, permitted
from chargewatch.api.errors import ApiError
from chargewatch.api.files import file_answer
from chargewatch.api.models import ERRORS
from chargewatch.api.models_evidence import EvidenceAsked, EvidenceFiles
from chargewatch.api.piles import Key, PileKey, find_pile
from chargewatch.errors import NotFoundError
from chargewatch.storage.office import evidence as rows
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.evidence import kept
from chargewatch.supervision.evidence.kept import PileName
from chargewatch.supervision.permissions import Permission

router = APIRouter(tags=["evidence"])

CaseWorker = Annotated[Account, Depends(permitted(Permission.WORK_CASES))]
OfRun = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="default: the newest file")]


def _name(pile: Mapping[Any, Any]) -> PileName:
    return PileName(
        operator_id=pile["operator_id"],
        station_id=pile["station_id"],
        connector=pile["connector"],
    )


async def evidence_listed(connection: AsyncConnection, pile: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what evidence there is of a pile, and whether the next run is asked for it."""
    name = vars(_name(pile))
    files = rows_of(await rows.files_of(connection, **name))
    return {
        **name,
        "files": [{k: v for k, v in file.items() if k not in name} for file in files],
        "wanted": await rows.is_wanted(connection, **name),
    }


@router.get(
    "/piles/{connector}/evidence",
    response_class=JsonAnswer,
    responses={200: {"model": EvidenceFiles}, **ERRORS},
)
async def list_evidence(service: ServiceOf, viewer: Viewer, key: Key) -> JsonAnswer:
    """Answer which evidence files were taken of a pile, the newest first."""
    async with service.database.connect() as connection:
        pile = await find_pile(connection, key, scope=viewer.scope)
        return JsonAnswer(await evidence_listed(connection, pile))


async def evidence_answer(
    service: Service, account: Account, key: PileKey, run_id: int | None
) -> Response:
    """Return the download of a pile's evidence file.

    Raises: ApiError 404 for a pile of somebody else, or without such a file; 429 or 503 when too
        many are under way.
    """
    async with service.database.connect() as connection:
        pile = _name(await find_pile(connection, key, scope=account.scope))
    with service.exports.held(account.user_id):
        try:
            found = await kept.given_out(service.database, pile, run_id=run_id)
        except NotFoundError as exc:
            raise ApiError(404, "not_found", str(exc)) from exc
    return file_answer(
        {
            "name": f"{pile.connector}-run-{found.run_id}.evidence.zip",
            "media_type": "application/zip",
            "content": found.content,
        }
    )


@router.get(
    "/piles/{connector}/evidence.zip",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}, **ERRORS},
)
async def show_evidence(
    service: ServiceOf, viewer: Viewer, key: Key, run: OfRun = None
) -> Response:
    """Answer the evidence file of a flag, with its proof once a checkpoint was signed."""
    return await evidence_answer(service, viewer, key, run)


async def wish(service: Service, account: Account, key: PileKey) -> bool:
    """Ask the next run for a pile's evidence; return whether nobody had.

    Raises: ApiError 404 for a pile of somebody else.
    """
    async with service.database.connect() as connection:
        pile = _name(await find_pile(connection, key, scope=account.scope))
    return await kept.ask_for(service.database, pile, account.actor, now=service.clock())


@router.post(
    "/piles/{connector}/evidence",
    response_class=JsonAnswer,
    responses={200: {"model": EvidenceAsked}, **ERRORS},
)
async def ask_for_evidence(service: ServiceOf, account: CaseWorker, key: Key) -> JsonAnswer:
    """Ask the next run for an evidence file of a pile, whatever it finds."""
    asked = await wish(service, account, key)
    return JsonAnswer({"connector": key.connector, "asked": asked})
