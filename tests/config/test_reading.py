"""Configurations are read by plain rules, and errors name the line."""

import json
from pathlib import Path

import pytest

from onnx_sipp import UsageError
from onnx_sipp.config.reading import read_config


@pytest.fixture
def config(tmp_path):
    def read(text, name="sipp.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return read_config(tmp_path / name)

    return read


def test_it_reads_options_rules_and_places(config, tmp_path):
    found = config(
        "calib: data/samples.npz\n"
        "sparsity: 0.7\n"
        "exclude-nodes: fc*   # a dash does as well, and one need be no list\n"
        "delta: 1e-3\n"
        "memory_limit: 2GB\n"
        "input_shapes: {x-y: [1, 3]}\n"
        "rules:\n"
        "  - nodes: layer1.*\n"
        "    shapes: [64x*x3x3]\n"
        "    sparsity: 0.9\n"
    )
    assert found.places == {"calib": str(tmp_path / "data/samples.npz")}
    rules = found.options.pop("rules")
    assert found.options == {
        "sparsity": 0.7, "exclude_nodes": ["fc*"], "delta": 1e-3, "memory_limit": 2 << 30,
        "input_shapes": {"x-y": (1, 3)},
    }  # fmt: skip
    assert rules[0].to_dict() == {
        "nodes": ["layer1.*"], "shapes": ["64x*x3x3"], "sparsity": 0.9,
    }  # fmt: skip
    assert found.lines["memory_limit"] == 5


def test_json_and_reports(config):
    assert config('{"sparsity": 0.7, "delta": 1e-16}').options == {"sparsity": 0.7, "delta": 1e-16}
    report = {
        "schema_version": 1, "layers": [{"name": "a"}],
        "options": {"sparsity": 0.5, "pattern": "2:4", "method": "mixed", "allocation": "auto",
                    "epsilon": None, "exclude_nodes": [], "states": {}},
    }  # fmt: skip
    found = config(json.dumps(report), "report.json").options
    assert found == {"sparsity": 0.5, "pattern": "2:4", "method": "mixed"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("sparsity: a lot", 1, "sparsity must be a number, not 'a lot'"),
        ("seed: 1\nspasity: 0.5", 2, "did you mean 'sparsity'?"),
        ("seed: 1\nseed: 2", 2, "'seed' is said twice"),
        ("seed: true", 1, "seed must be a whole number"),
        ("new_biases: 1", 1, "new_biases must be true or false"),
        ("seed: 1\ncalib: !!python/object/apply:os.system [ls]", 2, "tags like"),
        ("seed: 1\ncalib: !load x", 2, "tags like"),
        ("seed: 1\n  rounds: 2", 2, "is no YAML"),
        ("- sparsity", 1, "must be a mapping"),
        ("rules: {nodes: a}", 1, "rules must be a list"),
        ("rules:\n- nodes: a\n  sparsity: 2", 3, "sparsity must be a share"),
        ("rules:\n- nodes: a\n  exclud: true", 3, "did you mean 'exclude'?"),
        ("rules:\n- nodes: a\n  pattern: 2:4", 3, "cannot be said of single layers"),
        ("rules:\n- nodes: a\n  method: wanda", 3, "say `candidates`"),
        ("rules:\n- nodes: a\n  candidates: wanda", 3, "the candidates are"),
        ("seed: 1\nrules:\n- sparsity: 0.5", 3, "must say for which layers"),
        ("rules:\n- nodes: a", 2, "must say what holds"),
        ("exclude_nodes: [[a]]", 1, "a list of texts"),
        ("exclude_nodes: &a [*a]", 1, ""),
        ("memory_limit: much", 1, "a size, like 2GB"),
    ],
)
def test_errors_name_the_line(config, text, line, message):
    with pytest.raises(UsageError) as error:
        config(text)
    assert f"sipp.yaml, line {line}: " in str(error.value)
    assert message in str(error.value)


def test_files_that_are_none(config, tmp_path):
    with pytest.raises(UsageError, match="is empty"):
        config("# nothing\n")
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "missing.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="UTF-8"):
        read_config(tmp_path / "bytes.yaml")
    with pytest.raises(UsageError, match="is no YAML"):
        config("a: " + "[" * 100_000)


def test_aliases_that_unfold_without_end(config):
    text = "&a0 [x, x, x, x, x, x, x, x, x]"
    for level in range(1, 8):
        text = f"&a{level} [{text}, {', '.join([f'*a{level - 1}'] * 8)}]"
    with pytest.raises(UsageError, match="aliases undone"):
        config(f"exclude_nodes: {text}")
    assert config("exclude_nodes: &a [x]\ninclude_nodes: *a").options["include_nodes"] == ["x"]


def test_large_files(config, monkeypatch):
    report = {"schema_version": 1, "options": {"sparsity": 0.7}, "layers": ["x" * 100] * 20_000}
    assert config(json.dumps(report)).options == {"sparsity": 0.7}
    with pytest.raises(UsageError, match="too large for a configuration, and no report"):
        config(f"exclude_nodes: [{'x, ' * 500_000}]")


def test_numbers_of_many_digits(config):
    with pytest.raises(UsageError, match="line 1: this is no number that can be read"):
        config(f"seed: {'9' * 10_000}")


def test_a_device(tmp_path):
    with pytest.raises(UsageError, match="no regular file"):
        read_config(Path("/dev/zero"))
