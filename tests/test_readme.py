"""Every command and every piece of Python in the README and the docs is run as it stands there."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What makes an environment of a bare machine; here the one that runs the tests stands for it.
SETUP = re.compile(
    r"^python3 -m venv \.venv && \.venv/bin/pip install -q (-e )?'?\.(\[\w+\])?'? && "
)


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return [body for found, body in BLOCK.findall(text) if found == language]


def commands(page):
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line]


def quick_start():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Quick start")[1].split("\n## ")[0]
    return [
        line
        for found, body in BLOCK.findall(section)
        if found == "sh"
        for line in body.splitlines()
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory, models):
    """A folder with the files that the pages speak of, and an environment called .venv."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(models, folder / "models")
    shutil.copy(models / "lenet5.onnx", folder / "in.onnx")
    images = np.load(models / "digits-calib.npz")["input"][:32]
    np.savez(folder / "samples.npz", input=images)
    (folder / "data.py").write_text(
        "import numpy as np\n\n"
        "def load_data():\n"
        "    for image in np.load('samples.npz')['input'][:8]:\n"
        "        yield {'input': image[np.newaxis]}\n"
    )
    (folder / "judge.py").write_text(
        "import numpy as np\n\n"
        "def accuracy(session):\n"
        "    data = np.load('samples.npz')['input']\n"
        "    scores = session.run(None, {'input': data})[0]\n"
        "    return float(scores.max(1).mean())\n"
    )
    (config,) = blocks(ROOT / "docs" / "usage.md", "yaml")
    (folder / "sipp.yaml").write_text(config)
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    tool = shutil.which("onnx-sipp", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("onnx-sipp is not installed beside this Python")
    (binaries / "onnx-sipp").symlink_to(tool)
    return folder


def run(arguments, folder):
    path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "84", "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{arguments}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_the_quick_start_is_two_commands_for_a_bare_machine():
    prune, test = quick_start()
    for command in (prune, test):
        assert SETUP.match(command), command
    assert SETUP.sub("", prune).startswith(".venv/bin/onnx-sipp models/")
    extra = SETUP.match(test)[2].strip("[]")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any(name.startswith("pytest") for name in project["optional-dependencies"][extra])
    assert SETUP.sub("", test) == ".venv/bin/python -m pytest -q"


def test_ci_runs_the_test_command_of_the_readme():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    shown = subprocess.run([script, "--print"], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == [quick_start()[1]]


@pytest.mark.parametrize(
    ("page", "command"),
    [
        pytest.param(page, command, id=f"{page.stem}: {SETUP.sub('', command)}")
        for page in PAGES
        for command in commands(page)
        if "pytest" not in command
    ],
)
def test_commands(home, page, command):
    output = run(["bash", "-euo", "pipefail", "-c", SETUP.sub("", command)], home)
    assert output.strip()


@pytest.mark.parametrize(
    ("page", "code"),
    [
        pytest.param(page, code, id=f"{page.stem}-{index}")
        for page in PAGES
        for index, code in enumerate(blocks(page, "python"))
    ],
)
def test_python(home, page, code):
    assert run([sys.executable, "-c", code], home).strip()


def test_the_output_shown_is_what_the_command_prints(home):
    """Numbers apart: tools/update_readme.py puts them there."""
    (shown,) = blocks(ROOT / "README.md", "text")
    printed = run(["bash", "-c", SETUP.sub("", quick_start()[0])], home)
    texts = [re.sub(r"\d[\d.,]*(e[+-]?\d+)?", " ", text) for text in (shown, printed)]
    words = [set(re.findall(r"[^\W_]+", text)) for text in texts]
    assert words[0] == words[1], "run tools/update_readme.py"


def test_links():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not link.startswith("https://"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
