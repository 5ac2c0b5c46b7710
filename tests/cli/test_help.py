"""What --help shows, and what a shell completes."""

import os
import subprocess

import click
import pytest
from click.shell_completion import ShellComplete

from onnx_sipp.cli.help import GroupedCommand
from onnx_sipp.cli.main import cli

COMMANDS = cli.list_commands(click.Context(cli))


def shown(run, monkeypatch, *command):
    monkeypatch.setenv("COLUMNS", "100")
    return run(*command, "--help").out.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_it_fits_on_a_screen_and_a_half(run, monkeypatch, command):
    lines = shown(run, monkeypatch, command)
    assert 8 < len(lines) <= 76
    assert max(map(len, lines)) <= 102  # examples are not broken
    assert any(line.startswith("  onnx-sipp ") for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_shown_once_and_told(run, monkeypatch, command):
    lines = shown(run, monkeypatch, command)
    found = cli.get_command(click.Context(cli), command)
    names = [
        word.strip(",")
        for line in lines
        if line.startswith("  -")
        for word in line[2:].split("  ")[0].split()
    ]
    for option in (param for param in found.params if isinstance(param, click.Option)):
        first = next(name for name in option.opts if name.startswith("--"))
        assert names.count(first) == 1, first
        assert option.help, first


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_section(command):
    """But for the help itself, which ends the last one."""
    found = cli.get_command(click.Context(cli), command)
    if isinstance(found, GroupedCommand):
        named = [name for names in found.sections.values() for name in names]
        options = [param.name for param in found.params if isinstance(param, click.Option)]
        assert sorted(named) == sorted(options)


def completed(*words):
    *arguments, incomplete = words
    found = ShellComplete(cli, {}, "onnx-sipp", "_ONNX_SIPP_COMPLETE").get_completions(
        arguments, incomplete
    )
    return {(item.type, item.value) for item in found}


def test_commands_and_files_are_completed():
    found = completed("")
    assert {("plain", name) for name in COMMANDS} <= found
    assert ("file", "") in found
    assert completed("ins") == {("plain", "inspect"), ("file", "ins")}


def test_options_are_completed_without_the_name_of_the_default_command():
    found = {value for _, value in completed("in.onnx", "out.onnx", "--al")}
    assert found == {"--align", "--allocation"}
    assert completed("in.onnx", "out.onnx", "--al") == completed(
        "prune", "in.onnx", "out.onnx", "--al"
    )


def test_values_are_completed():
    found = completed("in.onnx", "out.onnx", "--method", "sipp-")
    assert {value for _, value in found} == {"sipp-det", "sipp-rand", "sipp-hybrid"}
    assert completed("in.onnx", "--calib", "da") == {("file", "da")}
    assert completed("in.onnx", "") == {("file", "")}


def test_nothing_fails_where_a_command_is_half_written():
    assert completed("inspec", "") == {("file", "")}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_for_shells(command, shell):
    environment = {**os.environ, "_ONNX_SIPP_COMPLETE": f"{shell}_source"}
    result = subprocess.run([command], env=environment, capture_output=True, text=True, check=False)
    assert "_ONNX_SIPP_COMPLETE" in result.stdout
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["in.onnx", "out.onnx", "--sparsty", "0.5"], "--sparsity"),
        (["compare", "in.onnx", "in.onnx", "--batchsizes", "1"], "--batch-sizes"),
        (["in.onnx", "out.onnx", "--exclude-nodes", "frist"], "did you mean 'first'?"),
        (["inspect", "in.onnx", "--exclude-op-types", "Gem"], "did you mean 'Gemm'"),
        (["packk", "in.onnx", "out.onnx"], "did you mean 'pack'?"),
    ],
)
def test_typos(run, arguments, hint):
    result = run(*arguments)
    assert result.code == 2
    assert hint in result.err
