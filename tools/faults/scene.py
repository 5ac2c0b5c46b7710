"""A folder with a model to prune, and the judge of what a disturbed run left there."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from watched import Ended, run

_MODELS = Path(__file__).parents[2] / "models"
COMMAND = ("m.onnx", "o.onnx", "--calib", "d.npz", "--method", "magnitude", "--num-samples", "64")
EXTRA = ("--report", "r.html", "--masks", "k.npz")
# What an undisturbed run makes, the same bytes each time; and the report, which tells its time.
_SAME = ("o.onnx", "o.onnx.data", "k.npz")
_REPORT = "r.html"


@dataclass(frozen=True)
class Kind:
    """What is pruned.

    Attributes:
        name: For people.
        external: Whether the weights lie in a file beside the model.
        old: Whether an output of an earlier run, with other options, is there already.
        extra: Further options.
    """

    name: str
    external: bool = False
    old: bool = False
    extra: Sequence[str] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """Arguments of ``onnx-sipp``."""
        return (*COMMAND, *self.extra)


PLAIN = Kind("plain")
FULL = Kind("with report and masks", extra=EXTRA)
EXTERNAL = Kind("external data", external=True)
AGAIN = Kind("external data, report, masks, over an earlier output", True, True, EXTRA)
KINDS = (PLAIN, FULL, EXTERNAL, AGAIN)


class Scenes:
    """Folders to run in.

    Args:
        home: Temporary folder for all of them.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        for name in ("inline", "external", "outputs"):
            (home / name).mkdir()
        model = onnx.load(_MODELS / "lenet300.onnx")
        onnx.save(model, home / "inline" / "m.onnx")
        onnx.save(
            model, home / "external" / "m.onnx", save_as_external_data=True, location="m.onnx.data",
            size_threshold=0,
        )  # fmt: skip
        values = np.load(_MODELS / "digits-calib.npz")["input"][:64]
        for name in ("inline", "external"):
            np.savez(home / name / "d.npz", input=values)
        self._made: dict[tuple[str, ...], dict[str, bytes]] = {}

    @contextmanager
    def scene(self, kind: Kind) -> Iterator["Scene"]:
        """A folder with the input, in a folder that goes when it is done."""
        with tempfile.TemporaryDirectory(dir=self._home) as place:
            folder = Path(place) / "folder"
            shutil.copytree(self._home / ("external" if kind.external else "inline"), folder)
            (Path(place) / "tmp").mkdir()
            old = {}
            if kind.old:
                old = self.made(kind, ("--sparsity", "0.2"))
                for name, content in old.items():
                    (folder / name).write_bytes(content)
            yield Scene(folder, kind, old, self.made(kind))

    def made(self, kind: Kind, more: Sequence[str] = ()) -> dict[str, bytes]:
        """What an undisturbed run makes: contents by name.

        Args:
            kind: Of the run; whatever is there before does not matter.
            more: Further options.
        """
        key = (str(kind.external), *kind.extra, *more)
        if key not in self._made:
            with tempfile.TemporaryDirectory(dir=self._home) as place:
                folder = Path(place) / "folder"
                shutil.copytree(self._home / ("external" if kind.external else "inline"), folder)
                ended = run((*kind.command, *more), folder)
                if ended.code:
                    raise SystemExit(f"the undisturbed run fails: {ended.err}")
                names = [n for n in (*_SAME, _REPORT) if (folder / n).exists()]
                self._made[key] = {name: (folder / name).read_bytes() for name in names}
                session = ort.InferenceSession(folder / "o.onnx")
                session.run(None, {"input": np.load(folder / "d.npz")["input"][:1]})
        return self._made[key]


@dataclass
class Scene:
    """A folder and what may lie in it.

    Attributes:
        folder: With ``m.onnx``, perhaps ``m.onnx.data``, and ``d.npz``.
        kind: Of the run.
        old: What an earlier run made, by name.
        new: What an undisturbed run makes.
    """

    folder: Path
    kind: Kind
    old: dict[str, bytes]
    new: dict[str, bytes]
    _inputs: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._inputs = self._digests()

    @cached_property
    def target(self) -> Path:
        """The output."""
        return self.folder / "o.onnx"

    def again(self) -> None:
        """Take the inputs as they are now for the original."""
        self._inputs = self._digests()

    def _digests(self) -> dict[str, str]:
        paths = sorted(self.folder.glob("m.onnx*")) + sorted(self.folder.glob("d.npz"))
        return {path.name: sha256(path.read_bytes()).hexdigest() for path in paths}

    def state(self) -> str:
        """What the output is now: none, old, new, or damaged."""
        if not self.target.exists():
            return "none"
        found = {
            name: (self.folder / name).read_bytes()
            for name in ("o.onnx", "o.onnx.data")
            if (self.folder / name).exists()
        }
        for what, made in (("new", self.new), ("old", self.old)):
            if made and found == {name: made[name] for name in found}:
                return what
        return "DAMAGED"

    def damage(self, *, killed: bool = False, vanished: bool = False) -> list[str]:
        """What is wrong in the folder.

        Args:
            killed: Whether the run had no chance to tidy up.
            vanished: Whether the folder was taken away.
        """
        wrong = [] if vanished or self._inputs == self._digests() else ["an input was changed"]
        wrong += ["the output is damaged"] if self.state() == "DAMAGED" else []
        masks, report = self.folder / "k.npz", self.folder / _REPORT
        whole = [made.get("k.npz") for made in (self.new, self.old)]
        if masks.exists() and masks.read_bytes() not in whole:
            wrong.append("the masks are damaged")
        if report.exists() and not report.read_bytes().rstrip().endswith(b"</html>"):
            wrong.append("the report is damaged")
        bad = [name for name in self.left() if not (killed and _is_ours(name))]
        return wrong + [f"{name} was left" for name in bad]

    def left(self) -> list[str]:
        """Files that are neither input nor output."""
        known = {*self._inputs, *_SAME, _REPORT}
        here = [p.name for p in self.folder.iterdir()] if self.folder.exists() else []
        # onnxruntime makes .ses when it is imported, whatever is done with it.
        temporary = [p.name for p in (self.folder.parent / "tmp").iterdir() if p.name != ".ses"]
        return [name for name in (*here, *temporary) if name not in known]


def _is_ours(name: str) -> bool:
    """Whether a name is that of a temporary file or folder of ours, never that of an output."""
    return name.startswith((".onnx-sipp-", "onnx-sipp-"))


@dataclass
class Row:
    """A line of the table.

    Attributes:
        fault: What was done.
        runs: How often.
        ends: How runs ended.
        states: What became of the output.
        message: One of those that were told.
        wrong: What must not be.
        left: How many runs left temporary files.
    """

    fault: str
    runs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    message: str = ""
    wrong: list[str] = field(default_factory=list)
    left: int = 0

    def add(
        self, scene: Scene, ended: Ended, *, killed: bool = False, vanished: bool = False,
        silent: bool = False,
    ) -> None:  # fmt: skip
        """Judge a run.

        Args:
            scene: Where it ran.
            ended: How it ended.
            killed: Whether it was ended by SIGKILL.
            vanished: Whether its folder was taken away.
            silent: Whether it had nowhere to tell anything.
        """
        self.runs += 1
        self.left += bool(scene.left())
        self.states[scene.state()] += 1
        code = ended.code
        self.ends[f"exit {code}" if code >= 0 else f"signal {-code}"] += 1
        wrong = scene.damage(killed=killed and code < 0, vanished=vanished)
        if not killed:
            is_told = ended.message.startswith(("onnx-sipp:", "Error:", "Usage:"))
            wrong += ["no message"] if code != 0 and not is_told and not silent else []
            wrong += ["a traceback"] if "Traceback" in ended.err else []
            wrong += [ended.stopped] if ended.stopped else []
            wrong += ["exit 0 without the output"] if code == 0 and scene.state() != "new" else []
            told = ended.message if code else ""
            self.message = self.message if len(self.message) > len("onnx-sipp: ") else told
        self.wrong += wrong
