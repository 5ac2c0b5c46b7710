"""A pass for Microsoft Olive that prunes by onnx-sipp. Tried with olive-ai 0.13.

    PYTHONPATH=. olive run --config workflow.json --package-config packages.json

Every option of `onnx_sipp.prune` can be given in ``options``.
"""

import logging
from pathlib import Path
from typing import Any

from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

import onnx_sipp

logger = logging.getLogger(__name__)


class SippPruning(Pass):  # type: ignore[misc]
    """Prune an ONNX model after training and refit what stays."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        del accelerator_spec
        return {
            "calibration": PassConfigParam(
                type_=str,
                default_value=None,
                description="Samples as `onnx-sipp --calib` takes them; None makes inputs up.",
            ),
            "sparsity": PassConfigParam(
                type_=float, default_value=None, description="Share of zeros; or give another goal."
            ),
            "options": PassConfigParam(
                type_=dict, default_value={}, description="More options of onnx_sipp.prune."
            ),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        options: dict[str, Any] = dict(config.options)
        if config.sparsity is not None:
            options["sparsity"] = config.sparsity
        target = resolve_onnx_path(output_model_path, Path(model.model_path).name)
        result = onnx_sipp.prune(model.model_path, config.calibration, **options)
        report = result.save(target)
        for warning in report.warnings:
            logger.warning(warning)
        return ONNXModelHandler(model_path=target)
