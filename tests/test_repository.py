"""Files around the code: workflows call make alone, and the version is the same everywhere."""

import re
import tomllib

import pytest
import yaml
from helpers import ROOT

import augbench

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_of_the_makefile_alone(path):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands
    for command in commands:
        make, target, *rest = command.split()
        assert make == "make" and target in TARGETS, command
        assert all("=" in word for word in rest), command


def test_forms_of_issues_are_valid_yaml():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(path.read_text())
        assert path.stem == "config" or {"name", "description", "body"} <= content.keys(), path


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "augbench.__version__"}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == augbench.__version__
    assert f"## [{augbench.__version__}] - 20" in (ROOT / "CHANGELOG.md").read_text()


def test_type_checkers_find_the_types():
    assert (ROOT / "src" / "augbench" / "py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert "py.typed" in project["setuptools"]["package-data"]["augbench"]
    assert {"augbench.core", "augbench.planning", "augbench.storage", "augbench.api"} == {*project["mypy"]["packages"]}
