"""The HTTP door: the telemetry contract's messages for operators who can't do MQTT."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

from fastapi import APIRouter, Query, Request

from chargewatch.api.answers import JsonAnswer
from chargewatch.api.context import Intake, ServiceOf, bearer_token, service_of
from chargewatch.api.errors import ApiError
from chargewatch.api.models import ERRORS, Error
from chargewatch.api.models_ingest import Receipt
from chargewatch.domain.identity import is_identity
from chargewatch.errors import DatabaseError
from chargewatch.supervision import tokens
from chargewatch.wire.envelope import MAX_PAYLOAD_BYTES
from chargewatch.wire.kinds import Kind

router = APIRouter(tags=["telemetry"])
log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 30.0
# Longer than the intake's own limit, so that it can clean up behind itself.
COMMIT_TIMEOUT_S = 75.0


async def _body(request: Request) -> bytes:
    """Return the payload; refuses it as soon as it is larger than the contract allows."""
    too_large = ApiError(
        413, "malformed", "the payload is larger than 1 MiB: send fewer readings in a message"
    )
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > MAX_PAYLOAD_BYTES:
        raise too_large
    payload = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                payload += part
                if len(payload) > MAX_PAYLOAD_BYTES:
                    raise too_large
    except TimeoutError as exc:
        raise ApiError(408, "timeout", "the payload did not arrive in time: send it again") from exc
    return bytes(payload)


async def _taken(
    request: Request, intake: Intake, kind: Kind, operator_id: str, station_id: str
) -> JsonAnswer:
    """Return the receipt of the message in a request's body."""
    received_at = service_of(request).clock()
    payload = await _body(request)
    try:
        async with asyncio.timeout(COMMIT_TIMEOUT_S):
            receipt = await intake.submit(
                kind=kind,
                operator_id=operator_id,
                station_id=station_id,
                payload=payload,
                content_type=request.headers.get("content-type"),
                received_at=received_at.timestamp(),
            )
    except (TimeoutError, DatabaseError) as exc:
        log.warning("telemetry_not_committed station=%s error=%s", station_id, exc)
        raise ApiError(
            503,
            "not_committed",
            "the message could not be committed: send the same message again later",
            headers={"Retry-After": "30"},
        ) from exc
    return JsonAnswer(receipt)


@router.post(
    "/telemetry/{kind}",
    response_class=JsonAnswer,
    responses={
        200: {"model": Receipt, "description": "Committed; some items may be rejected"},
        413: {"model": Error, "description": "Larger than 1 MiB"},
        429: {"model": Error, "description": "Too many messages of this operator at once"},
        503: {"model": Error, "description": "Not taken: send the same message again later"},
        **ERRORS,
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "application/json+gzip": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
async def submit_telemetry(
    request: Request,
    service: ServiceOf,
    kind: Kind,
    station_id: Annotated[str, Query(max_length=64, description="whose gateway speaks")],
) -> JsonAnswer:
    """Store one message with an operator's token and answer with its receipt.

    The operator is the token's; the payload is the same as over MQTT. An answer of 200 means
    committed: `stored + duplicate + rejected` is the number of items in the message.
    """
    token = bearer_token(request)
    operator_id = None if token is None else await tokens.operator_of(service.database, token)
    if operator_id is None:
        raise ApiError(
            401,
            "no_operator_token",
            "send the operator's token as `Authorization: Bearer ...`; the authority issues it "
            "with `chargewatch user token OPERATOR_ID`",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if not is_identity(station_id):
        raise ApiError(422, "invalid_field", "station_id: use 1 to 64 of A-Z a-z 0-9 _ -")
    if service.intake is None:
        raise ApiError(
            503, "door_closed", "this server takes no telemetry: use MQTT, or ask the authority"
        )
    # One operator's flood, or its slow clients, must not take the memory and turns of the others.
    with service.messages.held(operator_id):
        return await _taken(request, service.intake, kind, operator_id, station_id)
