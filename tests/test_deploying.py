"""Files for containers, workflows, packages and the site of the documentation."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from onnx_sipp.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def copied():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.findall(r"^COPY (.*)$", text, re.MULTILINE)
    return [name for line in lines for name in line.split()[:-1]]


def test_the_image_is_made_of_what_a_build_needs():
    needed = {"pyproject.toml", "onnx_sipp", PROJECT["readme"], *PROJECT["license-files"]}
    assert set(copied()) == needed
    assert all((ROOT / name).exists() for name in needed)


def test_nothing_that_the_image_needs_is_ignored():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())


def test_the_python_of_the_image_will_do():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    minor = int(re.search(r"^FROM python:3\.(\d+)", text, re.MULTILINE)[1])
    assert minor >= int(PROJECT["requires-python"].removeprefix(">=3."))


def test_templates_lie_in_the_package():
    """Hatchling packs all files of it."""
    package = ROOT / "onnx_sipp"
    asked = {
        name
        for file in package.rglob("*.py")
        for name in re.findall(r'"(\w+\.(?:html\.j2|md\.j2|css|js))"', file.read_text("utf-8"))
    }
    assert asked == {path.name for path in (package / "report" / "templates").iterdir()}


def test_the_workflow_asks_for_what_there_is():
    yaml = pytest.importorskip("yaml")
    path = ROOT / "docs" / "examples" / "prune-in-ci.yml"
    steps = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["prune"]["steps"]
    runs = {step["name"]: step["run"] for step in steps if "run" in step}
    tool, *arguments = shlex.split(runs["Prune"])
    assert tool == "onnx-sipp"
    command = cli.get_command(click.Context(cli), "prune")
    given = command.make_context("prune", arguments).params
    kept = next(step["with"]["path"] for step in steps if "upload" in step.get("uses", ""))
    written = {str(given["target"]), *map(str, given["reports"]), "prune.log"}
    assert set(kept.split()) <= written
    for name in re.findall(r"\w+\.(?:md|json)\b", runs["Show"] + runs["Check"]):
        assert name in written


@pytest.mark.parametrize(("error", "code"), [(0.1, 0), (0.9, 1)])
def test_the_check_of_the_workflow(tmp_path, error, code):
    yaml = pytest.importorskip("yaml")
    path = ROOT / "docs" / "examples" / "prune-in-ci.yml"
    steps = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["prune"]["steps"]
    script = next(step["run"] for step in steps if step.get("name") == "Check")
    code_of_it = script.split("<<'EOF'\n")[1].split("EOF")[0]
    (tmp_path / "report.json").write_text(f'{{"outputs": [{{"relative_error": {error}}}]}}')
    result = subprocess.run([sys.executable, "-c", code_of_it], cwd=tmp_path, check=False)
    assert result.returncode == code


def test_the_site_builds(tmp_path):
    """Every link leads somewhere, and every name of the library has its docstring."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    source = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in re.findall(r"^::: (\S+)$", source, re.MULTILINE):
        assert f'id="{name}"' in page
