"""Import by upload: what a file would change is shown first, and exactly that is taken then."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.mpe import RuleSet
from chargewatch.errors import NotFoundError
from chargewatch.storage.database import Database
from chargewatch.storage.office import files as file_rows
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.canonical import canonical
from chargewatch.supervision.file_types import plain_name
from chargewatch.supervision.files import check_file, keep_checked
from chargewatch.supervision.instruments.editing import EditError, checked_why
from chargewatch.supervision.registry import ImportReport, import_registry
from chargewatch.supervision.registry_preview import Preview, preview_in, preview_registry
from chargewatch.wire.registry_file import RegistryFile, read_registry_file


class StalePreviewError(EditError):
    """What the file would change is no longer what was shown."""


@dataclass(frozen=True, kw_only=True)
class UploadPreview:
    """A file that was handed in, kept and not yet taken.

    Attributes:
        file_id: of the kept file.
        name: of the file.
        sha256: of its bytes.
        digest: of what it would change.
        preview: what it would change.
    """

    file_id: int
    name: str
    sha256: str
    digest: str
    preview: Preview


def preview_digest(preview: Preview) -> str:
    """Return the SHA-256 of what a preview tells that would change."""
    told: dict[str, Any] = {
        "new": preview.new,
        "changed": preview.changed,
        "added": preview.added,
        "changes": [asdict(change) for change in preview.changes],
    }
    return hashlib.sha256(canonical(told)).hexdigest()


def _read(name: str, content: bytes, zone: str) -> RegistryFile:
    with tempfile.TemporaryDirectory(prefix="registry-") as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return read_registry_file(path, zone=zone)


async def read_upload(name: str, content: bytes, *, zone: str) -> RegistryFile:
    """Return the valid rows of a registry file that was handed in.

    Raises: RegistryFileError, naming file, line and column of every bad row.
    """
    return await asyncio.to_thread(_read, name, content, zone)


async def preview_upload(
    database: Database, *, name: str, content: bytes, actor: Actor, zone: str, rules: RuleSet
) -> UploadPreview:
    """Keep a file that was handed in, and return what an import of it would change.

    Raises: FileError for a file that isn't kept; RegistryFileError, naming file, line and column
        of every bad row: then it isn't kept either.
    """
    # First, because it names the place of what is wrong.
    file = await read_upload(plain_name(name), content, zone=zone)
    checked = await check_file(name, content)
    preview = await preview_registry(database, file, rules=rules)
    async with database.begin() as connection:
        file_id = await keep_checked(connection, actor, checked)
        await record(
            connection,
            actor,
            Action.REGISTRY_FILE_KEPT,
            f"file:{file_id}",
            name=checked.name,
            sha256=checked.sha256,
        )
    return UploadPreview(
        file_id=file_id,
        name=checked.name,
        sha256=checked.sha256,
        digest=preview_digest(preview),
        preview=preview,
    )


async def import_upload(
    database: Database,
    file_id: int,
    *,
    sha256: str,
    digest: str,
    why: str,
    actor: Actor,
    zone: str,
    rules: RuleSet,
) -> ImportReport:
    """Take exactly what the preview of a kept file has shown.

    Args:
        database: with the registry.
        file_id: of the kept file.
        sha256: of its bytes, as the preview told it.
        digest: of what it would change, as the preview told it.
        why: the reason of the import.
        actor: who imports.
        zone: time zone of times without offset.
        rules: what accuracy classes are looked up in.

    Raises: NotFoundError; StalePreviewError when other bytes were kept or the registry was changed
        meanwhile in what the file says; EditError without a reason.
    """
    reason = checked_why(why)
    async with database.connect() as connection:
        row = await file_rows.file(connection, file_id)
    if row is None:
        raise NotFoundError(f"no file {file_id} was kept: hand it in again")
    content = bytes(row["content"])
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StalePreviewError("the kept file is another one than was shown: hand it in again")
    file = await read_upload(row["name"], content, zone=zone)

    async def unchanged(connection: AsyncConnection) -> None:
        now = preview_digest(await preview_in(connection, file, rules=rules))
        if now != digest:
            raise StalePreviewError(
                "the registry was changed since the preview, and the file would do something else "
                "now: hand it in again and look at the new preview"
            )

    return await import_registry(
        database, file, actor=actor, rules=rules, why=reason, check=unchanged, patient=False
    )
