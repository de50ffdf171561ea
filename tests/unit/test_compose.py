"""compose.yaml: who has which secret, and no password where others could read it."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from running import CHECKOUT, checkout_files

COMPOSE = yaml.safe_load((CHECKOUT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWNER = "chargewatch"
OWN_ROLE = {
    "ingest": "chargewatch_ingest",
    "serve": "chargewatch_serve",
    "work": "chargewatch_serve",
    "assess": "chargewatch_assess",
    "refresh": "chargewatch_assess",
    "retention": "chargewatch_migrate",
}
SECRETS = {
    "archive-folder": set(),
    "database": {"owner"},
    "broker-users": {"platform"},
    "broker": set(),
    "migrate": {"owner", "migrate", "ingest", "assess", "serve"},
    "ingest": {"ingest", "platform"},
    "serve": {"serve", "ingest"},
    "work": {"serve"},
    "assess": {"assess"},
    "refresh": {"assess"},
    "retention": {"migrate"},
}


def environment(service: str) -> dict[str, str]:
    found = SERVICES[service].get("environment", {})
    assert isinstance(found, dict)
    return found


def test_every_service_has_the_secrets_of_its_duty_and_no_others() -> None:
    assert {name: set(service.get("secrets", ())) for name, service in SERVICES.items()} == SECRETS
    assert set(COMPOSE["secrets"]) == set.union(*SECRETS.values())


def test_only_migrate_connects_as_the_owner() -> None:
    users = {
        name: urlsplit(environment(name)["CHARGEWATCH_DATABASE_URL"]).username
        for name in SERVICES
        if "CHARGEWATCH_DATABASE_URL" in environment(name)
    }
    assert users == {**OWN_ROLE, "migrate": OWNER}
    door = environment("serve")["CHARGEWATCH_INGEST_DATABASE_URL"]
    assert urlsplit(door).username == "chargewatch_ingest"


def test_passwords_lie_in_files_and_each_file_is_of_the_user_it_serves() -> None:
    for name in SERVICES:
        for variable, value in environment(name).items():
            assert urlsplit(str(value)).password is None, f"{name}: {variable}"
            if "PASSWORD" in variable:
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert value.removeprefix("/run/secrets/") in SECRETS[name]
        files = {
            variable.removesuffix("_PASSWORD_FILE"): str(value).rpartition("/")[2]
            for variable, value in environment(name).items()
            if variable.endswith("_PASSWORD_FILE")
        }
        for stem, secret in files.items():
            url = environment(name).get(f"{stem}_URL")
            if url is not None:
                user = urlsplit(url).username or ""
                assert {OWNER: "owner"}.get(user, user.removeprefix(f"{OWNER}_")) == secret


def test_names_that_services_refer_to_exist() -> None:
    # Beyond what the schema of the Compose specification can say; compose stops at each.
    for name, service in SERVICES.items():
        for wanted, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert condition in {"service_healthy", "service_completed_successfully"}
            if condition == "service_healthy":
                assert "healthcheck" in SERVICES[wanted], f"{name} waits for {wanted}"
            else:
                assert SERVICES[wanted].get("restart", "no") == "no", f"{name} waits for {wanted}"
        for volume in service.get("volumes", ()):
            source = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", volume).split(":")[0]
            if source.startswith("."):
                assert (CHECKOUT / source).is_dir()
            else:
                assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("service", ["ingest", "serve"])
def test_services_are_watched_by_their_own_health(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"] == ["CMD", "chargewatch", "health", service]


@pytest.mark.parametrize("service", ["migrate", *OWN_ROLE])
def test_platform_runs_without_rights_on_the_machine(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in found["security_opt"]


def test_every_variable_of_compose_is_documented() -> None:
    operating = (CHECKOUT / "docs" / "operating.md").read_text(encoding="utf-8")
    text = (CHECKOUT / "compose.yaml").read_text(encoding="utf-8")
    variables = set(re.findall(r"\$\{(\w+)", text)) | set(re.findall(r"CHARGEWATCH_\w+", text))
    assert len(variables) > 10
    assert [name for name in sorted(variables) if name not in operating] == []


PASSWORD_ON_A_COMMAND_LINE = re.compile(
    r"mosquitto_passwd\s+(-\w+\s+)*-\w*b"
    r"|mosquitto_(pub|sub)\b.*\s(-P|--pw)\b"
    r"|--password[= ](?!stdin)\S"
    r"|--?(dbname|d)[= ]\S*(\$\w*URL|://\w+:)"
    r"|\b(psql|pg_dump|pg_restore|pg_basebackup)\b.*(\$\{?\w*URL|://\w+:)"
    r"|\b\w*(PASSWORD|PASSWD)=(?!\$)[^\s\"'`]*\w+ +\w",
)


def test_no_command_line_holds_a_password() -> None:
    names = [name for folder in ("deploy", "docs", "scripts") for name in checkout_files(folder)]
    names += ["compose.yaml", "Dockerfile", "README.md", "Makefile"]
    found = []
    for name in names:
        try:
            lines = (CHECKOUT / name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {line}" for line in lines if PASSWORD_ON_A_COMMAND_LINE.search(line)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'mosquitto_passwd -b /passwords platform "$PASSWORD"',
        "mosquitto_passwd -c -b passwords OP1 secret",
        "mosquitto_pub -u OP1 -P secret -t a",
        'pg_dump --format=custom --dbname "$OLD_URL"',
        'psql "$NEW_URL" -c "SELECT 1"',
        "psql postgresql://user:secret@host/name",
        "PGPASSWORD=secret psql",
    ],
)
def test_a_password_on_a_command_line_is_seen(line: str) -> None:
    assert PASSWORD_ON_A_COMMAND_LINE.search(line)


def make_secrets(folder: Path) -> str:
    done = subprocess.run(
        [str(CHECKOUT / "deploy" / "make-secrets"), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_secrets_are_made_once_and_for_every_name_of_compose(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    told = make_secrets(folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == {
        str(secret["file"]).rpartition("/")[2] for secret in COMPOSE["secrets"].values()
    }
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in made.values())
    assert not any(value in told for value in made.values())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    (folder / "serve").unlink()
    make_secrets(folder)
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in made if again[name] != made[name]} == {"serve"}
