"""The README's commands run as they stand, so that they can't rot."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_make_targets_of_the_readme_exist():
    targets = re.findall(r"^make (\w+)", "\n".join(blocks()), re.MULTILINE)
    assert set(targets) >= {"demo", "test"}
    for target in targets:
        dry_run = subprocess.run(
            ["make", "--dry-run", target], cwd=README.parent, capture_output=True, timeout=60
        )
        assert dry_run.returncode == 0, dry_run.stderr


def test_commands_of_the_readme_run(database_url, broker_url, tmp_path):
    (block,) = [block for block in blocks() if block.startswith("chargewatch migrate")]
    environment = os.environ | {
        "CHARGEWATCH_DATABASE_URL": database_url,
        "CHARGEWATCH_MQTT_URL": broker_url,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    result = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", block],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "assessments.csv").read_text().startswith("connector,station_id,operator_id")
    assert (tmp_path / "signals.csv").read_text().startswith("code,severity,connector")


def test_every_linked_document_exists():
    text = README.read_text(encoding="utf-8")
    missing = [
        link
        for link in re.findall(r"\]\(([^)#]+)\)", text)
        if "://" not in link and not (README.parent / link).exists()
    ]
    assert missing == []
