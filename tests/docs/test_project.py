"""What stands in several files of the project is the same in all of them."""

import re
import tomllib
from typing import Any

import pytest
import yaml
from setuptools.config.pyprojecttoml import read_configuration
from typer.testing import CliRunner

import mobilevit_fast
from mobilevit_fast import info
from mobilevit_fast.cli.app import app
from testing.paths import REPOSITORY
from tests.docs.pages import anchors


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*is still considered .* beta.*", "ignore:.*pyproject.*:UserWarning")
def test_the_version_is_the_same_everywhere() -> None:
    version = mobilevit_fast.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert read_configuration(REPOSITORY / "pyproject.toml")["project"]["version"] == version
    assert "version" in tomllib.loads(text_of("pyproject.toml"))["project"]["dynamic"]
    assert yaml.safe_load(text_of("CITATION.cff"))["version"] == version
    assert info.collect()["versions"]["mobilevit_fast"] == version


def test_the_newest_changes_are_of_this_version() -> None:
    assert re.findall(r"(?m)^## (.*)$", text_of("CHANGELOG.md"))[0] == mobilevit_fast.__version__
    assert mobilevit_fast.__version__.replace(".", "") in anchors(REPOSITORY / "CHANGELOG.md")


def test_the_command_prints_the_version() -> None:
    outcome = CliRunner().invoke(app, ["--version"])
    assert (outcome.exit_code, outcome.stdout) == (0, f"mobilevit-fast {mobilevit_fast.__version__}\n")


def test_the_workflow_runs_what_a_check_of_a_change_runs() -> None:
    workflow: dict[Any, Any] = yaml.safe_load(text_of(".github/workflows/test.yml"))
    job = workflow["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (REPOSITORY / ".ci" / "run").stat().st_mode & 0o100
    classifiers = tomllib.loads(text_of("pyproject.toml"))["project"]["classifiers"]
    versions = [found[1] for text in classifiers if (found := re.fullmatch(r".* Python :: (3\.\d+)", text))]
    assert job["strategy"]["matrix"]["python"] == versions


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.name
)
def test_issue_templates_are_forms(path: Any) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    assert all(field["type"] in ("textarea", "input", "markdown") for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])
