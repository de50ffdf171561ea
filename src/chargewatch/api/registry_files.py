"""The registry as files: export, and import by a preview that is confirmed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from chargewatch.api.answers import JsonAnswer
from chargewatch.api.context import Service, ServiceOf, Viewer
from chargewatch.api.errors import ApiError
from chargewatch.api.files import read_body
from chargewatch.api.models import ERRORS
from chargewatch.api.models_registry import Confirmation, DoneImport, PreviewedImport
from chargewatch.api.registry import RegistryEditor, registry_refusals
from chargewatch.api.slots import SlottedStream
from chargewatch.domain.mpe import rule_set
from chargewatch.errors import RegistryFileError
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.files import MOST_FILE_BYTES
from chargewatch.supervision.instruments.exports import (
    FORMS,
    LEDGER_FORMS,
    Form,
    export_file,
    export_ledger,
)
from chargewatch.supervision.instruments.uploads import (
    UploadPreview,
    import_upload,
    preview_upload,
)

router = APIRouter(tags=["registry"])


def _file(content: Any, service: Service, viewer: Account, name: str, media: str) -> Response:
    async def stream() -> AsyncIterator[bytes]:
        yield await content

    return SlottedStream(
        stream(),
        slots=service.exports,
        user_id=viewer.user_id,
        media_type=media,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def registry_file(service: Service, viewer: Account, form: Form) -> Response:
    """Return the registry as a download; an operator's user gets its own instruments."""
    ending, media = FORMS[form]
    content = export_file(service.database, form, scope=viewer.scope)
    return _file(content, service, viewer, f"registry.{ending}", media)


def ledger_file(service: Service, viewer: Account, form: Form) -> Response:
    """Return the national ledger as a download.

    Raises: ApiError 422 for JSON, which it has no form in.
    """
    if form not in LEDGER_FORMS:
        raise ApiError(422, "invalid_request", "form: the ledger is csv or xlsx")
    ending, media = LEDGER_FORMS[form]
    content = export_ledger(service.database, form, scope=viewer.scope)
    return _file(content, service, viewer, f"ledger.{ending}", media)


@router.get("/registry/export", summary="The registry as a file", responses={**ERRORS})
async def download_registry(service: ServiceOf, viewer: Viewer, form: Form = "json") -> Response:
    """Answer a registry file: JSON, a zip of CSV files, or XLSX."""
    return registry_file(service, viewer, form)


@router.get("/registry/ledger-file", summary="The national ledger", responses={**ERRORS})
async def download_ledger(service: ServiceOf, viewer: Viewer, form: Form = "csv") -> Response:
    """Answer the national ledger of the registered instruments, CSV or XLSX."""
    return ledger_file(service, viewer, form)


def told_preview(found: UploadPreview) -> dict[str, Any]:
    """Return a preview as the API and the page tell it."""
    preview = asdict(found.preview)
    keys = ("rows", "new", "changed", "unchanged", "added", "changes", "notices", "told", "sources")
    return {
        "file_id": found.file_id,
        "name": found.name,
        "sha256": found.sha256,
        "digest": found.digest,
    } | {key: preview[key] for key in keys}


@router.post(
    "/registry/imports",
    response_class=JsonAnswer,
    responses={200: {"model": PreviewedImport}, **ERRORS},
    summary="Hand in a registry file and see what it would change",
)
async def hand_in(
    request: Request,
    service: ServiceOf,
    viewer: RegistryEditor,
    name: Annotated[str, Query(max_length=120, description="as `piles.xlsx`")],
) -> JsonAnswer:
    """Keep the body as a file, take nothing of it, and answer what an import would change."""
    content = await read_body(request, most_bytes=MOST_FILE_BYTES)
    with registry_refusals():
        try:
            found = await preview_upload(
                service.database,
                name=name,
                content=content,
                actor=viewer.actor,
                zone=service.settings.time_zone,
                rules=rule_set(service.settings.mpe_rules),
            )
        except RegistryFileError as exc:
            raise ApiError(422, "bad_rows", str(exc)) from exc
    return JsonAnswer(told_preview(found))


@router.post(
    "/registry/imports/{file_id}",
    response_class=JsonAnswer,
    responses={200: {"model": DoneImport}, **ERRORS},
    summary="Take what a preview has shown",
)
async def confirm_import(
    service: ServiceOf, viewer: RegistryEditor, file_id: int, wanted: Confirmation
) -> JsonAnswer:
    """Import exactly the previewed bytes, if they still change what was shown."""
    report = await take_upload(
        service, viewer, file_id, sha256=wanted.sha256, digest=wanted.digest, why=wanted.why
    )
    return JsonAnswer(report)


async def take_upload(
    service: Service, account: Account, file_id: int, *, sha256: str, digest: str, why: str
) -> dict[str, Any]:
    """Import a kept file and return what it did.

    Raises: ApiError 404, 409, 422, 503.
    """
    with registry_refusals():
        try:
            report = await import_upload(
                service.database,
                file_id,
                sha256=sha256,
                digest=digest,
                why=why,
                actor=account.actor,
                zone=service.settings.time_zone,
                rules=rule_set(service.settings.mpe_rules),
            )
        except RegistryFileError as exc:
            raise ApiError(422, "bad_rows", str(exc)) from exc
    keys = ("import_id", "rows", "new", "changed", "notices")
    return {key: getattr(report, key) for key in keys}
