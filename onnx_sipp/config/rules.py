"""Rules: what holds for some layers only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from onnx_sipp.config.kinds import FLAG, NUMBER, read_as
from onnx_sipp.errors import UsageError
from onnx_sipp.pruning.candidates import CANDIDATES

__all__ = ["EFFECTS", "SELECTORS", "Rule", "checked_value", "read_rules", "unknown_key"]

_EXAMPLE = '{"nodes": "fc*", "sparsity": 0.9}'
SELECTORS = ("nodes", "op_types", "weights", "shapes")
EFFECTS = ("exclude", "sparsity", "floor", "candidates")
# Why something that holds for a whole run cannot be said of a layer.
_OF_THE_RUN = {
    "method": "a method ranks the weights of all layers together; say `candidates` to choose how "
    "the default method ranks those of a layer",
    "pattern": "a pattern counts cells where other layers count weights, so it holds for all; "
    "`exclude` layers that it is not for",
    "compensate": "the refit of a layer rests on those of the layers before it",
    "allocation": "it shares out the budget of all layers",
}


@dataclass(frozen=True)
class Rule:
    """What holds for the layers that match.

    A layer matches if each kind of pattern that is given has one that matches it. Of several rules
    for a layer, the last one that says something counts.

    Attributes:
        nodes: globs over the names of nodes.
        op_types: globs over operator types.
        weights: globs over the names of weights.
        shapes: globs over the shapes of weights as they are stored, like ``64x*x3x3``.
        exclude: leave these layers alone; False to take them, although an earlier rule does not.
        sparsity: share of zeros in each of these layers; the others share out the rest.
        floor: share of its weights that each of these layers keeps at least.
        candidates: which ways of choosing weights are compared in these layers.
    """

    nodes: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    exclude: bool | None = None
    sparsity: float | None = None
    floor: float | None = None
    candidates: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Rule | Mapping[str, Any]) -> Rule:
        """Read a rule, and check it.

        Raises:
            UsageError: a key is unknown, a value makes no sense, or one is missing.
        """
        if isinstance(given, Rule):
            given = given.to_dict()
        if not isinstance(given, Mapping):
            raise UsageError(f"a rule must be a mapping, like {_EXAMPLE}, not {given!r}")
        values = {}
        for key, value in given.items():
            if key not in (*SELECTORS, *EFFECTS):
                raise UsageError(unknown_key(key, (*SELECTORS, *EFFECTS)))
            values[key] = checked_value(key, value)
        if not set(values) & set(SELECTORS):
            raise UsageError(f"a rule must say for which layers, by {', '.join(SELECTORS)}")
        if not set(values) & set(EFFECTS):
            raise UsageError(f"a rule must say what holds, by {', '.join(EFFECTS)}")
        return cls(**values)

    def matches(self, name: str, op_type: str, weight: str, shape: Sequence[int]) -> bool:
        """Whether a layer is meant."""
        size = "x".join(map(str, shape))
        pairs = [
            (self.nodes, name),
            (self.op_types, op_type),
            (self.weights, weight),
            (self.shapes, size),
        ]
        return all(
            any(value == glob or fnmatchcase(value, glob) for glob in globs)
            for globs, value in pairs
            if globs
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, only what is given."""
        values = asdict(self).items()
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values
            if value not in ((), None)
        }

    @property
    def selection(self) -> str:
        """For which layers, for people."""
        given = {name: value for name, value in self.to_dict().items() if name in SELECTORS}
        return ", ".join(f"{name} {' or '.join(value)}" for name, value in given.items())


def read_rules(given: Any) -> list[Rule]:
    """Read a list of rules, and check it.

    Raises:
        UsageError: it is none, or one of the rules makes no sense.
    """
    if isinstance(given, str | Mapping | Rule) or not isinstance(given, Iterable):
        raise UsageError(f"rules must be a list, like [{_EXAMPLE}], not {given!r}")
    return [Rule.of(rule) for rule in given]


def checked_value(key: str, value: Any) -> Any:
    """The value of a key of a rule as it is kept.

    Raises:
        UsageError: it makes no sense.
    """
    read: Callable[[str, Any], Any] = _READERS.get(key, _globs)
    return read(key, value)


def unknown_key(key: str, known: Sequence[str]) -> str:
    """What to say of a key that does not exist."""
    if key in _OF_THE_RUN and set(known) == {*SELECTORS, *EFFECTS}:
        return f"{key!r} cannot be said of single layers: {_OF_THE_RUN[key]}"
    near = get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"there is no {key!r} here; {hint}"


def _globs(key: str, value: Any) -> tuple[str, ...]:
    globs = [value] if isinstance(value, str) else value
    if not isinstance(globs, Sequence) or not globs or not all(isinstance(g, str) for g in globs):
        raise UsageError(f"{key} must be a glob or a list of globs, not {value!r}")
    return tuple(globs)


def _shapes(key: str, value: Any) -> tuple[str, ...]:
    return tuple(glob.replace("×", "x").replace(" ", "") for glob in _globs(key, value))


def _flag(key: str, value: Any) -> bool:
    return bool(read_as(FLAG, key, value))


def _share(key: str, value: Any) -> float:
    share = NUMBER[0](value)
    if share is None or not 0 <= share < 1:
        raise UsageError(f"{key} must be a share, at least 0 and below 1, not {value!r}")
    return float(share)


def _candidates(key: str, value: Any) -> tuple[str, ...]:
    names = _globs(key, value)
    if not set(names) <= set(CANDIDATES):
        raise UsageError(f"the {key} are {', '.join(CANDIDATES)}, not {', '.join(names)}")
    return names


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "shapes": _shapes,
    "exclude": _flag,
    "sparsity": _share,
    "floor": _share,
    "candidates": _candidates,
}
