"""What is fuzzed: functions of bytes, which may refuse them with a `SippError` but not fail."""

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import onnx_sipp
from onnx_sipp.calibration.sources import open_source
from onnx_sipp.calibration.specs import InputSpec
from onnx_sipp.config.reading import read_config
from onnx_sipp.errors import SippError
from onnx_sipp.given_masks import GivenMasks
from onnx_sipp.graph.model import Model

__all__ = ["TARGETS", "Target", "fed", "parsed"]

Target = Callable[[bytes], object]

# Where the files lie that targets read; in memory, if the system has such a folder.
_SHARED_MEMORY = "/dev/shm"


@cache
def folder() -> Path:
    """A folder of this process."""
    place = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="onnx-sipp-fuzz-", dir=place))


def _file(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


def fuzz_model(data: bytes) -> None:
    """Reads a model and finds its layers."""
    onnx_sipp.inspect(data)


def fuzz_samples(data: bytes) -> None:
    """Reads samples from a ``.npz`` for a model with two inputs."""
    specs = [
        InputSpec("x", np.dtype("f4"), ("n", 3)),
        InputSpec("i", np.dtype("i8"), ("n",)),
    ]
    for feed in open_source(_file("d.npz", data), specs, num_samples=8):
        assert set(feed) == {"x", "i"}


def fuzz_array(data: bytes) -> None:
    """Reads samples from a ``.npy``."""
    specs = [InputSpec("x", np.dtype("f4"), ("n", 3))]
    for feed in open_source(_file("d.npy", data), specs, num_samples=8):
        assert feed["x"].shape[1:] == (3,)


def fuzz_config(data: bytes) -> None:
    """Reads a configuration."""
    read_config(_file("c.yaml", data))


def fuzz_masks(data: bytes) -> None:
    """Reads masks from a ``.npz``."""
    GivenMasks(_file("m.npz", data))


def fuzz_reference(data: bytes) -> None:
    """Reads a weight from where three lines say: the location, the offset and the length."""
    (folder() / "w.data").write_bytes(bytes(64))
    parts = [part.decode("utf-8", "replace") for part in data.split(b"\n")]
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(4, 4))
    weight.data_location = TensorProto.EXTERNAL
    for key, value in zip(("location", "offset", "length"), parts, strict=False):
        weight.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(name, 1, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight]
    )
    path = folder() / "r.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    model = Model.load(path)
    assert model.read("w").tobytes() == bytes(64)  # nothing but its own file can be read


TARGETS: Mapping[str, Target] = {
    "model": fuzz_model,
    "samples": fuzz_samples,
    "array": fuzz_array,
    "config": fuzz_config,
    "masks": fuzz_masks,
    "reference": fuzz_reference,
}


def fed(target: Target, data: bytes) -> bool:
    """Feed a target; says whether it took the bytes rather than refusing them.

    Raises:
        Exception: whatever is no `SippError`: then something is to be mended.
    """
    try:
        target(data)
    except SippError as error:
        if not str(error).strip():
            raise RuntimeError("refused without a message") from error
        return False
    return True


def parsed(data: bytes) -> onnx.ModelProto | None:
    """A model, None if it is none."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # of protobuf, whichever implementation
        return None
    return model
