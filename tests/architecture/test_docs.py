"""The pages agree with the code."""

import re
from pathlib import Path

import pytest

from valence_auth.settings import Settings as AuthSettings
from valence_batch_worker.settings import Settings as WorkerSettings
from valence_common.settings import PREFIX
from valence_inference.settings import Settings as InferenceSettings

ROOT = Path(__file__).parents[2]
FOLDERS = [
    *ROOT.glob("services/*/README.md"),
    *(ROOT / f"{name}/README.md" for name in ("alembic", "ml", "tests")),
]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *FOLDERS]
PROCESSES = (AuthSettings, InferenceSettings, WorkerSettings)

NO_FIELDS = {"VALENCE_SECRETS_DIR", "VALENCE_HOME", "VALENCE_PORT"} | {
    "VALENCE_REQUIRE",
    "VALENCE_TEST_DATA",
}
"""Read before the settings are, by the launcher, or by the tests."""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_page_is_found_from_the_readme() -> None:
    """The README links every page of docs/, and docs/adr as a folder."""
    readme = (ROOT / "README.md").read_text("utf-8")
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", readme))
    assert {_name(page) for page in ROOT.glob("docs/*.md")} == linked


@pytest.mark.parametrize("page", FOLDERS, ids=_name)
def test_every_file_of_a_folder_is_explained(page: Path) -> None:
    """The first column of its table names each module and folder, and none that is not there."""
    package = next(page.parent.glob("valence_*"), page.parent)
    if package.name == "valence_common":
        return  # a charter, which test_source_rules.py compares
    cells = re.findall(r"^\| (.*?) \|", page.read_text("utf-8"), re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`([\w./]+)`", cell)]
    assert [] == [name for name in named if not any(package.rglob(name.rstrip("/")))]
    ending = "" if package.name == "tests" else ".py"  # of tests, the folders are explained
    there = {
        path.name
        for path in package.iterdir()
        if path.name[:2] != "__" and (path.is_dir() or (ending and path.suffix == ending))
    }
    if package.name == "valence_ml":
        there -= {"releases"}
    assert set() == there - {name.partition("/")[0] for name in named}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_page_leads_nowhere_that_is_not(page: Path) -> None:
    """Links, and pages named as `docs/x.md`, lead to files that exist."""
    text = page.read_text("utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [] == [link for link in links if not (page.parent / link).exists()]
    named = set(re.findall(r"`(docs/[\w./-]+)`", text))
    assert [] == [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    """A renamed setting is renamed on every page."""
    known = {PREFIX + name.upper() for each in PROCESSES for name in each.model_fields} | NO_FIELDS
    named = set(re.findall(r"\bVALENCE_[A-Z_]+[A-Z]\b", page.read_text("utf-8")))
    assert set() == named - known


def test_series_that_operators_look_at_exist() -> None:
    """Pages for operators name only metrics that ARCHITECTURE.md lists."""
    listed = set(re.findall(r"`(valence_\w+)`", (ROOT / "ARCHITECTURE.md").read_text("utf-8")))
    for page in ("docs/operations.md", "docs/events.md", "docs/privacy.md"):
        named = re.findall(r"\bvalence_[a-z_]+", (ROOT / page).read_text("utf-8"))
        series = {name.removesuffix("_total") for name in named}
        packages = {"valence_auth", "valence_common"}
        assert set() == series - listed - packages
