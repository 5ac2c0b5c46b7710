"""What a result is good for, and how to use it, in sentences for every form of the report."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_sipp.report.quantizing import FASTER
from onnx_sipp.report.result import Report

__all__ = ["Hint", "guaranteed", "hints", "sparse_cores", "zeros_buy"]

_HONEST = (
    "What the zeros buy: stock runtimes (onnxruntime, OpenVINO) multiply zeros as fast as any "
    "other number, so this file is neither smaller nor faster by itself. It shrinks when it is "
    "compressed (zip, zstd, a package or an app store do that), and it runs faster only on "
    "runtimes with kernels for unstructured sparsity."
)
_PACKED = (
    "What the zeros buy: the file is smaller, because the weights are stored without them and "
    "rebuilt when the model is loaded. Stock runtimes (onnxruntime, OpenVINO) then multiply zeros "
    "as fast as any other number, so it is not faster by itself."
)
_FOR_CORES = (
    "What the zeros buy: TensorRT runs such layers on sparse tensor cores (NVIDIA Ampere and "
    "later, trtexec --sparsity=enable) where it measures them to be faster, which takes some "
    "hundred channels. Other stock runtimes multiply zeros as fast as any other number."
)
_FOR_PATTERNS = (
    "What the zeros buy: stock runtimes (onnxruntime, OpenVINO, TensorRT) multiply these zeros as "
    "fast as any other number. The pattern is for runtimes with kernels made for it."
)
SMALLER = (
    "What was cut is gone from the graph: the file is smaller and every runtime has less to do. "
    "Nothing is guaranteed of it: trust the measured errors."
)


@dataclass(frozen=True)
class Hint:
    """A step towards using the model.

    Attributes:
        text: what it is for.
        command: for a shell.
    """

    text: str
    command: str


def zeros_buy(report: Report) -> str:
    """Whether the result is smaller or faster by itself."""
    if report.cut is not None:
        return SMALLER
    if report.quantization is not None:
        return FASTER
    if report.options["pattern"]:
        return _FOR_CORES if _able(report) else _FOR_PATTERNS
    return _HONEST if report.packing is None else _PACKED


def guaranteed(report: Report) -> str:
    """What the certificate says, and what it does not."""
    data = report.calibration
    return (
        "What is guaranteed: ε bounds the relative error of the positive and the negative part of "
        f"each neuron's sum on a fresh input (δ = {data.delta:g}, if at least "
        f"{data.samples_needed} samples are used; {data.samples_certified} were). An ε of 1 or "
        "more promises nothing, and carried through a deep network such bounds are vacuous: trust "
        "the measured errors beside them."
    )


def sparse_cores(report: Report) -> list[str]:
    """With a pattern: how many layers sparse tensor cores can run, and why not the others."""
    reasons: dict[str, list[str]] = {}
    for layer in report.layers:
        if layer.no_sparse_cores:
            reasons.setdefault(layer.no_sparse_cores, []).append(layer.name)
    told = [f"not {', '.join(names)}: {why}" for why, names in reasons.items()]
    return [f"Sparse tensor cores can run {_able(report)} of {len(report.layers)} layers.", *told]


def _able(report: Report) -> int:
    return sum(layer.no_sparse_cores == "" for layer in report.layers)


def hints(report: Report) -> list[Hint]:
    """How to deploy the result: commands with IN.onnx and OUT.onnx for the two files."""
    found = [
        Hint(
            "Measure both models on data of your own: outputs, sizes, memory and time.",
            "onnx-sipp compare IN.onnx OUT.onnx --data test.npz",
        )
    ]
    if report.packing is not None:
        found.append(
            Hint(
                "It runs wherever ONNX does: the runtime rebuilds the weights when it loads the "
                "model. For a tool that has to see them, store them dense again.",
                "onnx-sipp unpack OUT.onnx dense.onnx",
            )
        )
    elif report.cut is None:
        found.append(
            Hint(
                "It runs wherever the original did. To ship it smaller, store the weights without "
                "their zeros; outputs stay the same.",
                "onnx-sipp pack OUT.onnx small.onnx",
            )
        )
    if report.options["pattern"] and report.cut is None and _able(report):
        found.append(
            Hint(
                "On NVIDIA GPUs of the Ampere generation and later, let TensorRT try its sparse "
                "kernels.",
                "trtexec --onnx=OUT.onnx --sparsity=enable --fp16",
            )
        )
    return found
