"""Multiply matrices in onnxruntime, where the user's model runs; numpy is the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_sipp.calibration.runtime import runtime
from onnx_sipp.calibration.session import first_line, open_session
from onnx_sipp.errors import SippError
from onnx_sipp.statistics.multiplying import NUMPY, Held, Multiplier

__all__ = ["RuntimeMultiplier", "multiplier_for"]

Float = NDArray[np.floating]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# Where a provider finds its operands without copying them each time.
_DEVICES = {_CUDA: "cuda"}
# Without this, CUDA rounds the factors of a float32 product to 10 bits.
_SETTINGS: Mapping[str, Mapping[str, str]] = {_CUDA: {"use_tf32": "0"}}


def multiplier_for(providers: Sequence[str] | None) -> Multiplier:
    """What multiplies for someone who asks for such execution providers, None for the CPU.

    CUDA can be told to multiply in float32 what is float32. Others may take half precision or TF32
    (TensorRT, Core ML, OpenVINO on a GPU), which least squares do not bear.
    """
    ahead = takewhile(lambda name: name != _CPU, providers or ())
    return RuntimeMultiplier(_CUDA) if _CUDA in ahead else NUMPY


class RuntimeMultiplier:
    """Multiplies float32 matrices in onnxruntime; see `statistics.multiplying.Multiplier`.

    Sessions are opened when they are first needed, anew in every process that it is sent to.

    Args:
        provider: the execution provider that multiplies; no other one takes its place.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._sessions: dict[bool, Any] = {}

    def __reduce__(self) -> tuple[type[RuntimeMultiplier], tuple[str]]:
        return RuntimeMultiplier, (self._provider,)

    def __deepcopy__(self, memo: dict[int, Any]) -> RuntimeMultiplier:
        return self  # sums are copied often, sessions take a while to open

    def hold(self, matrix: Float) -> Held:
        """Copy a float32 matrix to where products are made.

        Raises:
            SippError: it cannot be.
        """
        # Not every version of onnxruntime can sum up nothing, and no patches are a usual sight.
        return _OnDevice(self, matrix) if matrix.size else NUMPY.hold(matrix)

    def value(self, matrix: Float) -> Any:
        """A matrix as onnxruntime takes it, on the device."""
        with self._telling(matrix):
            device = _DEVICES.get(self._provider, "cpu")
            return runtime().OrtValue.ortvalue_from_numpy(matrix, device, 0)

    def product(self, a: Any, b: Any, *, transposed: bool) -> Float:
        """A B or A Bᵀ, as a numpy array, of what `value` has made.

        Raises:
            SippError: onnxruntime fails.
        """
        session = self._session(transposed=transposed)
        with self._telling(a, b):
            result: Float = session.run_with_ort_values(["y"], {"a": a, "b": b})[0].numpy()
        return result

    def _session(self, *, transposed: bool) -> Any:
        ort = runtime()
        if transposed not in self._sessions:
            # Whoever asks for products works on several at a time itself.
            session = open_session(
                _model(transposed=transposed), folder=None, threads=1,
                providers=[self._provider], settings=_SETTINGS,
            )  # fmt: skip
            session.disable_fallback()
            if session.get_providers()[0] != self._provider:
                raise SippError(
                    f"onnxruntime {ort.__version__} has {self._provider} but cannot use it here; "
                    "check its driver and libraries, or run with --providers CPUExecutionProvider"
                )
            self._sessions[transposed] = session  # of two threads the last one's, which is as good
        return self._sessions[transposed]

    @contextmanager
    def _telling(self, *matrices: Any) -> Iterator[None]:
        ort = runtime()
        try:
            yield
        except Exception as error:  # onnxruntime's exceptions share no base class
            shapes = " and ".join(str(list(_shape(matrix))) for matrix in matrices)
            raise SippError(
                f"onnxruntime {ort.__version__} fails to multiply on {self._provider}, matrices of "
                f"{shapes}: {first_line(error)}\n"
                "Run with --providers CPUExecutionProvider to multiply on the CPU"
            ) from error


class _OnDevice:
    """A matrix that onnxruntime holds; see `statistics.multiplying.Held`."""

    def __init__(self, multiplier: RuntimeMultiplier, matrix: Float) -> None:
        self._multiplier, self._matrix = multiplier, matrix
        self._value = multiplier.value(matrix)

    def times(self, x: Float) -> Float:
        """See `Held.times`."""
        return self._product(x, transposed=False)

    def times_transposed(self, x: Float) -> Float:
        """See `Held.times_transposed`."""
        return self._product(x, transposed=True)

    def _product(self, x: Float, *, transposed: bool) -> Float:
        # X Xᵀ needs X there once only.
        left = self._value if x is self._matrix else self._multiplier.value(x)
        return self._multiplier.product(left, self._value, transposed=transposed)


def _shape(matrix: Any) -> Sequence[int]:
    shape: Sequence[int] = (
        matrix.shape() if isinstance(matrix, runtime().OrtValue) else matrix.shape
    )
    return shape


def _model(*, transposed: bool) -> bytes:
    """One product of float32 matrices, or of stacks of them, of any shape."""
    node = helper.make_node(
        "FusedMatMul", ["a", "b"], ["y"], domain="com.microsoft", transB=int(transposed)
    )
    a, b, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "aby")
    graph = helper.make_graph([node], "product", [a, b], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())
