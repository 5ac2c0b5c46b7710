"""Read a configuration: YAML or JSON, or the report of an earlier run; errors name the line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from onnx_sipp.config.kinds import KINDS, PLACES, checked_kind
from onnx_sipp.config.rules import EFFECTS, SELECTORS, Rule, checked_value, unknown_key
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.files import read_plain
from onnx_sipp.pruning.methods import METHODS

__all__ = ["Config", "read_config"]

_MOST_BYTES = 64 << 20  # a report of a large model has some
_MOST_YAML_BYTES = 1 << 20  # it is read a thousand times slower than JSON
_MOST_VALUES = 50_000
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # which YAML 1.1 takes for text


@dataclass(frozen=True)
class Config:
    """What a file says.

    Attributes:
        path: of the file.
        options: as keywords of `prune`.
        places: files that the command line names: ``calib``, ``data_loader_script``.
        lines: by key, where it is said.
    """

    path: Path
    options: dict[str, Any]
    places: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


def read_config(path: Path) -> Config:
    """Read a file and check what can be checked without a model.

    Args:
        path: of a YAML or JSON file, or of a report that ``prune --json`` wrote: then the options
            of that run are taken.

    Raises:
        UsageError: there is no such file, it is no plain YAML, or it says something impossible.
    """
    reader = _Reader(path)
    top = reader.mapping(reader.root, "the file")
    if "schema_version" in top and "options" in top:
        top = reader.mapping(top["options"][1], "options")
        said = {name: pair for name, pair in top.items() if _is_said(pair[1])}
        return _without_defaults(reader.config(said, Path()))
    return reader.config(top, path.parent)


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = _MOST_VALUES
        try:
            text = read_plain(path, _MOST_BYTES).decode()
            node = yaml.compose(_shortened(text, path), yaml.SafeLoader)
        except SippError as error:
            raise UsageError(str(error)) from error
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeError as error:
            raise UsageError(f"{path}: is no text file in UTF-8") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            raise UsageError(
                f"{path}{f', line {mark.line + 1}' if mark else ''}: is no YAML: {error.problem}"
            ) from error
        except (yaml.YAMLError, RecursionError) as error:
            raise UsageError(f"{path}: is no YAML: {error}") from error
        if node is None:
            raise UsageError(f"{path}: is empty; say what holds, e.g. `sparsity: 0.7`")
        self.root = node

    def refused(self, node: yaml.Node, message: str) -> UsageError:
        """An error that names the line."""
        return UsageError(f"{self._path}, line {node.start_mark.line + 1}: {message}")

    def mapping(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """The keys of a mapping, each with its node and that of its value.

        Raises:
            UsageError: it is none, or a key is there twice.
        """
        if not isinstance(node, yaml.MappingNode):
            raise self.refused(node, f"{what} must be a mapping, like `sparsity: 0.7`")
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = str(key.value).replace("-", "_") if isinstance(key, yaml.ScalarNode) else ""
            if not name:
                raise self.refused(key, "a key must be a name")
            if name in found:
                raise self.refused(key, f"{name!r} is said twice")
            found[name] = key, value
        return found

    def config(self, top: Mapping[str, tuple[yaml.Node, yaml.Node]], folder: Path) -> Config:
        """Options, rules and places; paths are relative to a folder."""
        options: dict[str, Any] = {}
        places: dict[str, Any] = {}
        known = [*KINDS, *PLACES, "rules"]
        for name, (key, node) in top.items():
            if name == "rules":
                options[name] = self._rules(node)
                continue
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
                raise self.refused(key, f"there is no option {name!r}; {hint}")
            value = self.plain(node)
            try:
                checked = checked_kind(name, value, folder)
            except UsageError as error:
                raise self.refused(node, str(error)) from error
            (places if name in PLACES else options)[name] = checked
        lines = {name: key.start_mark.line + 1 for name, (key, _) in top.items()}
        return Config(self._path, options, places, lines)

    def _rules(self, node: yaml.Node) -> list[Rule]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.refused(node, "rules must be a list, each beginning with `- nodes: …`")
        return [self._rule(one) for one in node.value]

    def _rule(self, node: yaml.Node) -> Rule:
        values = {}
        for name, (key, value) in self.mapping(node, "a rule").items():
            if name not in (*SELECTORS, *EFFECTS):
                raise self.refused(key, unknown_key(name, (*SELECTORS, *EFFECTS)))
            try:
                values[name] = checked_value(name, self.plain(value))
            except UsageError as error:
                raise self.refused(value, str(error)) from error
        try:
            return Rule.of(values)
        except UsageError as error:
            raise self.refused(node, str(error)) from error

    def plain(self, node: yaml.Node, depth: int = 0) -> Any:
        """Plain data of a node.

        Raises:
            UsageError: it has a tag, or is nested too deep.
        """
        if depth > 8:
            raise self.refused(node, "this is nested too deep")
        self._left -= 1
        if self._left < 0:
            raise self.refused(node, f"there are more than {_MOST_VALUES:,} values, aliases undone")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            raise self.refused(node, f"tags like {node.tag!r} are not read")
        if isinstance(node, yaml.MappingNode):
            pairs = self.mapping(node, "this").items()
            # Names of inputs may have dashes: they are taken as they stand.
            return {key.value: self.plain(value, depth + 1) for _, (key, value) in pairs}
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(one, depth + 1) for one in node.value]
        if (
            isinstance(node, yaml.ScalarNode)
            and node.style is None
            and _FLOAT.fullmatch(node.value)
        ):
            return float(node.value)
        try:
            return _constructed(node)
        except ValueError as error:  # a number of thousands of digits
            raise self.refused(node, "this is no number that can be read") from error
        except yaml.YAMLError as error:
            raise self.refused(node, f"tags like {node.tag!r} are not read") from error


def _shortened(text: str, path: Path) -> str:
    """The text, of a report only the part that is read.

    Raises:
        UsageError: it is too large.
    """
    if len(text) <= _MOST_YAML_BYTES:
        return text
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        if isinstance(found, dict) and "schema_version" in found and "options" in found:
            text = json.dumps({key: found[key] for key in ("schema_version", "options")})
    if len(text) > _MOST_YAML_BYTES:
        raise UsageError(f"{path}: is too large for a configuration, and no report")
    return text


def _constructed(node: yaml.Node) -> Any:
    """Plain data of a scalar by YAML's safe rules alone."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _without_defaults(report: Config) -> Config:
    """The same without an allocation that no user has to name, as some patterns allow none."""
    options = dict(report.options)
    method = METHODS.get(options.get("method", ""))
    if method is not None and options.get("allocation") == method.allocation:
        del options["allocation"]
    return replace(report, options=options)


def _is_said(node: yaml.Node) -> bool:
    """Whether an option of a report has a value."""
    empty = isinstance(node, yaml.CollectionNode) and not node.value
    return not empty and node.tag != "tag:yaml.org,2002:null" and node.value != ""
