"""What quantising did, as plain data and in the terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from onnx_sipp.report.outputs import OutputReport

__all__ = ["FASTER", "QuantizeReport", "QuantizedWeight", "quantizing_sentence"]

FASTER = (
    "What integers buy: the file is smaller, and onnxruntime, OpenVINO and others have kernels for "
    "them, which are faster where the processor has instructions for int8 (VNNI, AMX, dot "
    "product). The zeros make it smaller still when it is packed or compressed, but not faster."
)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight that is int8 now.

    Attributes:
        name: of the constant that was quantised.
        shape: of it.
        elements: of it.
        zeros_before: how many of them were zero.
        zeros: how many are the zero point now; more, where small values were rounded to it.
        scales: 1, or one per channel.
    """

    name: str
    shape: list[int]
    elements: int
    zeros_before: int
    zeros: int
    scales: int


@dataclass(frozen=True)
class QuantizeReport:
    """What quantising did to the pruned model.

    Attributes:
        kind: what was asked for: ``int8`` or ``int8-dynamic``.
        weights: that are int8 now.
        left: constants of two or more axes that stayed floating point.
        relative_errors: by output of the graph, ‖quantised − pruned‖ / ‖pruned‖ on held-out
            samples: what quantising alone did. None where that cannot be measured.
        outputs_pruned: fidelity of the pruned model before, see `Report.outputs` for after.
        bytes_before: size of the pruned model with its zeros.
        bytes_after: the same, quantised.
    """

    kind: str
    weights: list[QuantizedWeight]
    left: list[str]
    relative_errors: dict[str, float | None]
    outputs_pruned: list[OutputReport]
    bytes_before: int
    bytes_after: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "zeros_before": self.zeros_before, "zeros": self.zeros}

    @property
    def zeros_before(self) -> int:
        """Zeros of those weights before."""
        return sum(weight.zeros_before for weight in self.weights)

    @property
    def zeros(self) -> int:
        """Zero points among their elements now."""
        return sum(weight.zeros for weight in self.weights)


def quantizing_sentence(report: QuantizeReport) -> str:
    """Zeros, sizes and error in a sentence or two."""
    elements = sum(weight.elements for weight in report.weights)
    errors = [error for error in report.relative_errors.values() if error is not None]
    told = (
        f" On held-out samples that alone changed outputs by {max(errors):.2g} (relative error)."
        if errors
        else ""
    )
    left = f" Floating point stayed: {', '.join(report.left)}." if report.left else ""
    return (
        f"Quantised {len(report.weights)} weights ({report.kind}): {report.zeros_before:,} of "
        f"{elements:,} elements were zero, {report.zeros:,} are the zero point now; "
        f"{report.bytes_before:,} bytes before, {report.bytes_after:,} after.{told}{left}"
    )
