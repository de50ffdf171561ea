"""Links, files and names in the documents lead somewhere."""

from __future__ import annotations

import re
from functools import cache

from documents import CHECKOUT, DOCS, PAGES, code

LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"(?:[\w-]+/)+[\w.-]*\w")
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
# What a path in a document may begin at; one whose first folder is in none is not of ours.
PLACES = (CHECKOUT, DOCS, CHECKOUT / "src", CHECKOUT / "src" / "chargewatch")
# Names of others, said to be theirs.
OTHERS = {
    "client_header_timeout",
    "client_body_timeout",
    "limit_conn",
    "proxy_pass",
    "use_username_as_clientid",
    "clientid_prefixes",
    "connection_messages",
    "log_dest",
    "memory_limit",
    "mosquitto_passwd",
    "chargewatch_database",
    "max_tuples_decompressed_per_dml_transaction",
}


def anchors(text: str) -> set[str]:
    """Return what GitHub makes of the headings."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@cache
def everything() -> str:
    """Return the text of all programs, migrations, settings and tests."""
    folders = ("src", "migrations", "deploy", "scripts", "tests")
    files = [path for folder in folders for path in sorted((CHECKOUT / folder).rglob("*"))]
    files += [*CHECKOUT.glob("*.yaml"), CHECKOUT / "pyproject.toml", CHECKOUT / "Makefile"]
    here = (".py", ".sql", ".conf", ".toml", ".yaml", ".html", ".sh", ".js", "", ".csv", ".json")
    names = "\n".join(path.name for path in files)
    return names + "\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in files
        if path.is_file()
        and path.suffix in here
        and path.name != "test_docs_links.py"
        and "__pycache__" not in path.parts
        and path.stat().st_size < 1 << 20
    )


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    checked = 0
    for page in PAGES:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page.name}: {target}"
            checked += 1
    assert checked > 40


def test_every_page_of_docs_is_in_the_readme() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    for page in sorted(DOCS.glob("*.md")):
        assert f"](docs/{page.name})" in readme, page.name


def test_every_name_in_code_letters_is_one_of_the_program() -> None:
    unknown = {
        f"{page.name}: {word}"
        for page in PAGES
        for words in code(page.read_text(encoding="utf-8"))
        for word in re.split(r"[^\w]+", words)
        if NAME.fullmatch(word)
        and word not in OTHERS
        and word.removesuffix("_total") not in everything()
    }
    assert not unknown


def test_every_path_in_code_letters_exists() -> None:
    checked = 0
    for page in PAGES:
        for word in code(page.read_text(encoding="utf-8")):
            if not FILE.fullmatch(word):
                continue
            first = word.partition("/")[0]
            places = [place for place in PLACES if (place / first).is_dir()]
            assert not places or any((place / word).exists() for place in places), (
                f"{page.name}: {word}"
            )
            checked += bool(places)
    assert checked > 15
