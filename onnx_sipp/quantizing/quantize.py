"""Quantise a model by onnxruntime's quantiser: fold, quantise, tidy up, count the zeros."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from onnx_sipp.calibration.session import first_line, open_session
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.choices import QUANTIZATIONS
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.walk import main_opset
from onnx_sipp.quantizing.refusal import refuse_quantization
from onnx_sipp.quantizing.saturation import CUTS_OFF, cuts_off_sums
from onnx_sipp.quantizing.tidy import tidied
from onnx_sipp.quantizing.zeros import count_zeros
from onnx_sipp.report.quantizing import QuantizedWeight

__all__ = ["Quantized", "quantize"]

# A scale per channel needs the axis of DequantizeLinear.
CHANNELS_OPSET = 13
_UNFOLDED = "quantised without folding constants first, after which the quantiser fails"
# What the quantiser has integer operators for that onnxruntime runs on signed weights; it cannot
# do so with ConvInteger. A Gemm becomes a MatMul.
DYNAMIC_OPS = ("MatMul", "Attention", "LSTM")


@dataclass(frozen=True)
class Quantized:
    """A quantised model.

    Attributes:
        model: it.
        weights: that are integers now.
        left: constants of two or more axes that stayed floating point.
        notes: what could not be done as it should, and what else to know.
    """

    model: Model
    weights: list[QuantizedWeight]
    left: list[str]
    notes: tuple[str, ...] = ()


def quantize(
    model: Model,
    kind: str,
    feeds: Iterable[Feed],
    threads: int,
    providers: Sequence[str] | None = None,
) -> Quantized:
    """Quantise a model.

    Constants and batch normalisations are folded first, as the quantiser's manual advises. Weights
    become int8, symmetric, so that 0 stays 0.

    Args:
        model: to quantise; is not changed.
        kind: ``int8`` puts QuantizeLinear and DequantizeLinear around everything that can be
            computed in integers, with a scale per output channel (from opset 13 on), and takes
            the range of activations, uint8, from the feeds; ``int8-dynamic`` quantises MatMul,
            Gemm and LSTM alone and finds the range of activations when the model runs.
        feeds: calibration samples; ``int8-dynamic`` needs none.
        threads: of the runtime while constants are folded.
        providers: of the runtime while the feeds are run.

    Raises:
        UsageError: there is no such kind, or the model cannot be quantised, see
            `refusal.refuse_quantization`.
        SippError: the quantiser fails, or finds nothing to do.
    """
    if kind not in QUANTIZATIONS:
        raise UsageError(f"quantize must be one of {', '.join(QUANTIZATIONS)}, not {kind!r}")
    refuse_quantization(model)
    with tempfile.TemporaryDirectory(prefix="onnx-sipp-") as folder:
        plain, folded, integer = (Path(folder) / f"{n}.onnx" for n in ("plain", "folded", "int"))
        model.save(plain)
        open_session(plain, folder=None, threads=threads, providers=None, optimized=folded)
        on_cpu = set(providers or ()) <= {"CPUExecutionProvider"}
        source, notes = folded, [CUTS_OFF] if on_cpu and cuts_off_sums() else []
        external = bool(model.sites.external)
        try:
            _run_quantizer(folded, integer, kind, feeds, providers, external=external)
        except SippError as error:
            _run_quantizer(plain, integer, kind, feeds, providers, external=external)
            cause = error.__cause__
            said = first_line(cause if isinstance(cause, Exception) else error)
            source, notes = plain, [f"{_UNFOLDED}: {said}", *notes]
        before, after = onnx.load(source), onnx.load(integer)
    weights, left = count_zeros(before, after)
    if not weights:
        raise SippError(_nothing(kind, before))
    return Quantized(Model(tidied(after, model.proto)), weights, left, tuple(notes))


def _run_quantizer(
    source: Path,
    target: Path,
    kind: str,
    feeds: Iterable[Feed],
    providers: Sequence[str] | None,
    *,
    external: bool,
) -> None:
    """Have a file quantised.

    Raises:
        SippError: the quantiser fails, or onnxruntime refuses what it makes.
    """
    from onnxruntime import quantization  # noqa: PLC0415 - heavy; only where used

    integers = quantization.QuantType
    shared: dict[str, Any] = {
        "per_channel": main_opset(onnx.load(source, load_external_data=False)) >= CHANNELS_OPSET,
        "weight_type": integers.QInt8,
        "use_external_data_format": external,
    }
    try:
        with _quiet():
            if kind == "int8-dynamic":
                operators = list(DYNAMIC_OPS)
                quantization.quantize_dynamic(
                    source, target, op_types_to_quantize=operators, **shared
                )
            else:
                if providers:
                    shared["calibration_providers"] = list(providers)
                quantization.quantize_static(
                    source, target, _reader(feeds), activation_type=integers.QUInt8, **shared
                )
        open_session(target, folder=None, threads=1, providers=None, idle=True)
    except Exception as error:  # the quantiser raises what its parts raise
        raise SippError(
            f"onnxruntime's quantiser fails on the model: {first_line(error)}; leave --quantize "
            "out, or try the other kind (int8, int8-dynamic)"
        ) from error


def _reader(feeds: Iterable[Feed]) -> Any:
    """The feeds as the quantiser wants them."""
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415 - heavy

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Feed | None:
            """See `CalibrationDataReader.get_next`."""
            return next(self._feeds, None)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the quantiser's advice, which was followed, and which names no option of ours.

    It logs by ``logging.warning``, which gives the root logger a handler if it has none, even for a
    message that is kept back: whatever is logged later would be printed.
    """
    before = logging.root.manager.disable
    stand_in = logging.NullHandler()
    logging.root.addHandler(stand_in)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        logging.root.removeHandler(stand_in)


def _nothing(kind: str, proto: ModelProto) -> str:
    operators = ", ".join(sorted({node.op_type for node in proto.graph.node}))
    other = "; --quantize int8 does more, Conv among it" if kind == "int8-dynamic" else ""
    return (
        f"--quantize {kind} found no weight that onnxruntime's quantiser can turn into integers "
        f"(operators of the model: {operators}){other}; or leave --quantize out"
    )
