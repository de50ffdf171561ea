"""Least privilege: one database role for each of migrate, ingest, assess and serve.

Rights are one table, RIGHTS; a table that is not in it is open to nobody but its owner, and a
test finds it. Applying is idempotent: rights that are no longer listed are taken away.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import DatabaseError
from chargewatch.settings import secret_from
from chargewatch.storage import sql
from chargewatch.storage.database import Database

DUTIES = ("migrate", "ingest", "assess", "serve")
"""What the roles are for; the role's name is a prefix, an underscore and its duty."""

_READ = "SELECT"
_ADD = "SELECT, INSERT"
_CHANGE = "SELECT, INSERT, UPDATE"
_REPLACE = "SELECT, INSERT, DELETE"
_ALL = "SELECT, INSERT, UPDATE, DELETE"

RIGHTS: Mapping[str, Mapping[str, str]] = {
    # The registry: ingest adds instruments that nobody registered, pages import files.
    "operator": {"ingest": _READ, "assess": _READ, "serve": _CHANGE},
    "station": {"ingest": _READ, "assess": _READ, "serve": _CHANGE},
    "connector": {"ingest": _ADD, "assess": _READ, "serve": _CHANGE},
    "reference_meter": {"ingest": _ADD, "assess": _READ, "serve": _CHANGE},
    "reference_meter_connector": {"ingest": _READ, "assess": _READ, "serve": _ALL},
    "verification": {"assess": _READ, "serve": _CHANGE},
    "verification_point": {"assess": _READ, "serve": _ADD},
    "tariff": {"assess": _READ, "serve": _CHANGE},
    # Ingest reads from it whether the registry changed.
    "registry_import": {"ingest": _READ, "assess": _READ, "serve": _ADD},
    "registry_history": {"assess": _READ, "serve": _ADD},
    "inspector": {"assess": _READ, "serve": _CHANGE},
    "ledger_entry": {"assess": _READ, "serve": _CHANGE},
    # Written by triggers of `verification`, with the rights of who changes that.
    "instrument_validity": {"assess": _READ, "serve": _ALL},
    "due_step": {"serve": _ALL},
    # Telemetry: only ingest writes it, but for changes that people declare.
    "register_reading": {"ingest": _ADD, "assess": _READ, "serve": _READ},
    "reference_reading": {"ingest": _ADD, "assess": _READ, "serve": _READ},
    "session_name": {"ingest": _CHANGE, "assess": _READ, "serve": _READ},
    "charging_session": {"ingest": _ADD, "assess": _READ, "serve": _READ},
    "instrument_event": {"ingest": _ADD, "assess": _READ, "serve": _CHANGE},
    "latest_reading": {"ingest": _CHANGE, "assess": _READ, "serve": _READ},
    "ledger_stream": {"ingest": _CHANGE, "assess": _READ, "serve": _READ},
    "message_ledger": {"ingest": _ADD, "assess": _READ, "serve": _READ},
    "ledger_day": {"assess": _READ, "serve": _READ},
    "ledger_gap": {"ingest": _ALL, "assess": _READ, "serve": _READ},
    "ingest_session": {"ingest": _ALL},
    "quarantine": {"ingest": _ADD, "assess": _READ, "serve": _READ},
    "quarantine_day": {"ingest": _CHANGE, "assess": _READ, "serve": _READ},
    "quarantine_replay": {"ingest": _ADD, "assess": _READ, "serve": _READ},
    "station_status": {"ingest": _CHANGE, "assess": _READ, "serve": _READ},
    # Rollups and runs: only assess writes them; an import that tells a register's step marks days.
    "rollup_pending": {"ingest": _CHANGE, "assess": _ALL, "serve": _ADD},
    "rollup_claimed": {"assess": _ALL, "serve": _READ},
    "rollup_version": {"assess": _ALL, "serve": _READ},
    "connector_interval": {"assess": _ALL, "serve": _READ},
    "meter_interval": {"assess": _ALL, "serve": _READ},
    "retention_horizon": {"ingest": _READ, "assess": _READ, "serve": _READ},
    "risk_run": {"assess": _ALL, "serve": _READ},
    "assessment": {"assess": _ALL, "serve": _READ},
    "run_state": {"assess": _ALL},
    "evidence_file": {"assess": _ADD, "serve": _READ},
    # Pages ask, and the run that took what was asked deletes it.
    "evidence_wanted": {"assess": _REPLACE, "serve": _CHANGE},
    "signal": {"assess": _ALL, "serve": _READ},
    "money_month": {"assess": _ALL, "serve": _READ},
    "money_owed": {"assess": _ALL, "serve": _READ},
    "money_total": {"assess": _ALL, "serve": _READ},
    # What verifications made of flags: counted after a run, and when one is entered.
    "flag_outcome": {"assess": _ALL, "serve": _ALL},
    # Derived from the registry and the newest run: whoever changes one of them makes it anew.
    "pile_index": {"assess": _REPLACE, "serve": _REPLACE},
    # Credit: a published grade is never changed.
    "credit_grade": {"serve": _ADD},
    "credit_draft": {"serve": _ALL},
    "self_commitment": {"serve": _CHANGE},
    "operator_day": {"serve": _CHANGE},
    # People: only serve sees them.
    "app_user": {"serve": _ALL},
    "login_session": {"serve": _ALL},
    "api_token": {"serve": _ALL},
    "operator_token": {"serve": _ALL},
    # Complaints; whom to tell is deleted with time and on request.
    "complaint": {"serve": _CHANGE},
    "complaint_contact": {"serve": _ALL},
    # The office's cases: what was said, and a file that was handed in, stays as it was.
    "office_case": {"serve": _CHANGE},
    "case_entry": {"serve": _ADD},
    "case_year": {"serve": _CHANGE},
    "office_file": {"serve": _ADD},
    # Done by `chargewatch work`, with the rights of serve.
    "job": {"serve": _ALL},
    # What people and programs are told.
    "notice": {"serve": _CHANGE},
    "notice_wish": {"serve": _CHANGE},
    "notice_mark": {"serve": _CHANGE},
    "brief_seen": {"serve": _CHANGE},
    "webhook": {"serve": _CHANGE},
    # The audit trail: a trigger refuses every change, and what does not follow the last entry.
    "audit_entry": {"assess": _ADD, "serve": _ADD},
    "audit_checkpoint": {"serve": _ADD},
    # Inspections: what was thrown and recused stays as it was said.
    "inspection_draw": {"serve": _CHANGE},
    "draw_throw": {"serve": _ADD},
    "draw_recusal": {"serve": _ADD},
    "inspection": {"assess": _READ, "serve": _CHANGE},
    "alembic_version": {"ingest": _READ, "assess": _READ, "serve": _READ},
}
"""Table, duty and what the duty may do with the table. migrate owns all tables."""

FUNCTION_RIGHTS: Mapping[str, tuple[str, ...]] = {
    "merge_connector_claim": ("serve",),
    "merge_meter_claim": ("serve",),
    "standing_claims": ("ingest",),
}
"""Function and the duties that may call it; it runs with the rights of migrate, its owner."""

_STATEMENT_TIMEOUT = {"serve": "30s", "ingest": "60s"}


@dataclass(frozen=True)
class RoleReport:
    """What was made: the roles, and the passwords of those that got a new one."""

    roles: tuple[str, ...]
    passwords: Mapping[str, str]
    tables_without_rights: tuple[str, ...]


def password_variable(duty: str) -> str:
    """Return the environment variable that may hold the password of a role."""
    return f"CHARGEWATCH_{duty.upper()}_PASSWORD"


def passwords_from(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the password of every duty from the environment, or from the files it names.

    Raises: DatabaseError that names the missing variables; SettingError for a file.
    """
    environ = os.environ if environ is None else environ
    variables = {duty: password_variable(duty) for duty in DUTIES}
    found = {duty: secret_from(name, environ) for duty, name in variables.items()}
    missing = [variables[duty] for duty, password in found.items() if not password]
    if missing:
        raise DatabaseError(
            f"set {', '.join(missing)} (or with _FILE behind, the files that hold them), "
            "or leave --passwords-from out"
        )
    return found


def scram_verifier(password: str, *, salt: bytes | None = None, rounds: int = 4096) -> str:
    """Return what PostgreSQL keeps of a password, so that its text never reaches a server log.

    Raises: DatabaseError if the password holds other than printable ASCII characters.
    Source: RFC 5802, section 3; RFC 7677.
    """
    if not (password.isascii() and password.isprintable()):
        raise DatabaseError("a role's password may hold printable ASCII characters only")
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(rounds, *parts)


ROLE_EXISTS = sql.statement(
    "roles: role exists", "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :name)"
)
TABLES = sql.statement(
    "roles: tables",
    "SELECT c.relname AS name, pg_get_userbyid(c.relowner) AS owner "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') "
    "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') "
    "ORDER BY 1",
)
FUNCTIONS = sql.statement(
    "roles: functions",
    "SELECT p.proname AS name, p.oid::regprocedure::text AS function FROM pg_proc p "
    "WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY(CAST(:names AS text[])) "
    "ORDER BY 2",
)
DATABASE_NAME = sql.statement("roles: database name", "SELECT current_database()")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _make_role(
    connection: AsyncConnection, name: str, *, password: str | None, rotate: bool
) -> str | None:
    """Create a role if it is missing; return its password when it got a new one."""
    if not await sql.value(connection, ROLE_EXISTS, name=name):
        await connection.exec_driver_sql(
            f"CREATE ROLE {_quoted(name)} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE "
            "NOREPLICATION NOBYPASSRLS"
        )
    elif password is None and not rotate:
        return None
    password = password or secrets.token_urlsafe(24)
    await connection.exec_driver_sql(
        f"ALTER ROLE {_quoted(name)} PASSWORD '{scram_verifier(password)}'"
    )
    return password


async def _tables(connection: AsyncConnection) -> dict[str, str]:
    """Return every table with its owner."""
    found = await sql.rows(connection, TABLES)
    return {str(row["name"]): str(row["owner"]) for row in found}


async def _apply_rights(
    connection: AsyncConnection, tables: Mapping[str, str], *, roles: Mapping[str, str]
) -> None:
    owner = roles["migrate"]
    for table, present_owner in tables.items():
        # It would wait for everybody who reads the table, and everybody for it: only when needed.
        if present_owner != owner:
            await connection.exec_driver_sql(
                f"ALTER TABLE public.{_quoted(table)} OWNER TO {_quoted(owner)}"
            )
        await connection.exec_driver_sql(f"REVOKE ALL ON public.{_quoted(table)} FROM PUBLIC")
        for duty in DUTIES[1:]:
            role = _quoted(roles[duty])
            await connection.exec_driver_sql(f"REVOKE ALL ON public.{_quoted(table)} FROM {role}")
            rights = RIGHTS.get(table, {}).get(duty)
            if rights:
                await connection.exec_driver_sql(
                    f"GRANT {rights} ON public.{_quoted(table)} TO {role}"
                )


async def _apply_function_rights(connection: AsyncConnection, *, roles: Mapping[str, str]) -> None:
    for row in await sql.rows(connection, FUNCTIONS, names=list(FUNCTION_RIGHTS)):
        name, function = row["name"], row["function"]
        await connection.exec_driver_sql(
            f"ALTER FUNCTION {function} OWNER TO {_quoted(roles['migrate'])}"
        )
        callers = ", ".join(_quoted(roles[duty]) for duty in DUTIES[1:])
        await connection.exec_driver_sql(
            f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC, {callers}"
        )
        for duty in FUNCTION_RIGHTS[name]:
            await connection.exec_driver_sql(
                f"GRANT EXECUTE ON FUNCTION {function} TO {_quoted(roles[duty])}"
            )


async def make_roles(
    database: Database,
    *,
    prefix: str = "chargewatch",
    passwords: Mapping[str, str] | None = None,
    rotate: bool = False,
) -> RoleReport:
    """Make the four roles with their rights on the present tables; return new passwords once.

    Run it again after a migration. Identity columns need no right on their sequence. A table
    that a later migration adds is closed to all but its owner until then.

    Raises: DatabaseError if the connected role may not make roles, or a statement is refused.
    """
    roles = {duty: f"{prefix}_{duty}" for duty in DUTIES}
    new: dict[str, str] = {}
    try:
        async with database.begin() as connection:
            await connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
            name = str(await sql.value(connection, DATABASE_NAME))
            for duty, role in roles.items():
                given = (passwords or {}).get(duty)
                password = await _make_role(connection, role, password=given, rotate=rotate)
                if password is not None and given is None:
                    new[role] = password
                await connection.exec_driver_sql(
                    f"GRANT CONNECT, TEMPORARY ON DATABASE {_quoted(name)} TO {_quoted(role)}"
                )
                await connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA public TO {_quoted(role)}")
                timeout = _STATEMENT_TIMEOUT.get(duty)
                if timeout:
                    await connection.exec_driver_sql(
                        f"ALTER ROLE {_quoted(role)} IN DATABASE {_quoted(name)} "
                        f"SET statement_timeout = '{timeout}'"
                    )
            migrate = _quoted(roles["migrate"])
            await connection.exec_driver_sql(f"GRANT CREATE ON SCHEMA public TO {migrate}")
            await connection.exec_driver_sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            tables = await _tables(connection)
            await _apply_rights(connection, tables, roles=roles)
            await _apply_function_rights(connection, roles=roles)
    except DBAPIError as exc:
        raise DatabaseError(
            f"roles were not made, nothing was changed: {exc.orig}; connect as a superuser "
            "or as the owner of the database with CREATEROLE"
        ) from exc
    unknown = tuple(table for table in tables if table not in RIGHTS)
    return RoleReport(tuple(roles.values()), new, unknown)
