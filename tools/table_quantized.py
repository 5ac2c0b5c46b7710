"""Prunes models, quantises them by both kinds, packs them, and writes the table.

    python tools/table_quantized.py
    python tools/table_quantized.py --also "ResNet20 (CIFAR-10)" resnet20.onnx calib.npz test.npz

The test file has the model's inputs and ``labels``. Writes ``docs/results-quantization.md``, anew
after every row.
"""

import argparse
import os
import platform
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import zstandard
from bench_accuracy import Case, accuracy, command, load_case, outputs
from table_methods import MODELS, ROOT, markdown

import onnx_sipp
from onnx_sipp.graph.model import Model
from onnx_sipp.quantizing.quantize import quantize

SAMPLES = 512
CALIB, TEST = (MODELS / f"digits-{part}.npz" for part in ("calib", "test"))
DIGITS = {
    "LeNet-5 (digits)": "lenet5",
    "LeNet-300-100 (digits)": "lenet300",
    "ResNet with BatchNorm (digits)": "resnet_bn",
    "Transformer (digits)": "transformer",
}
SPARSITIES = (0.0, 0.7, 0.9)
KINDS = ("", "int8", "int8-dynamic")
TEXT = """\
# Quantising

Models pruned by the default method, quantised (see [quantization.md](quantization.md)), and packed.
{samples} samples.

- *zeros*: share of zeros, or of zero points, among the elements of the quantised weights; of the
  prunable ones where nothing is quantised;
- *size*, *packed*, *zstd*: of the whole file, of that of the dense fp32 model: as it is, by
  `onnx-sipp pack`, and compressed by zstd (level 9) without packing;
- *accuracy*: of the packed file on the test samples, in per cent;
- *time*: of a run of 16 samples on one thread in onnxruntime, packed by dense fp32, ± its standard
  error; *nodes*: what onnxruntime makes of the convolutions and products of the packed file.

On a shared machine of {cores} cores ({machine}; it has {flags}).

{table}
Made by `{command}` with onnx-sipp {version}, onnxruntime {ort}, numpy {numpy}.
"""
HEADER = ["model", "pruned", "integers", "zeros", "size", "packed", "zstd", "accuracy", "time",
          "nodes"]  # fmt: skip
HEAVY = ("Conv", "FusedConv", "QLinearConv", "MatMul", "FusedMatMul", "QLinearMatMul", "Gemm",
         "FusedGemm", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")  # fmt: skip


def heavy_nodes(path: Path) -> str:
    """Which products there are in the model as onnxruntime runs it.

    Args:
        path: of the model.
    """
    target = path.with_name("optimized.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(target).graph.node]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in HEAVY if kind in kinds)


def processor_flags() -> str:
    """Instructions for integers that this machine has, of those that matter."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = {"avx2": "AVX2", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI",
             "amx_int8": "AMX"}  # fmt: skip
    words = set(text.split())
    absent = "" if "amx_int8" in words else ", but no AMX"
    return ", ".join(name for flag, name in names.items() if flag in words) + absent


def rows_of(case: Case, sparsity: float, seconds: float) -> list[list[str]]:
    """Prunes once, and returns a row for every kind of integers that there is.

    Args:
        case: the model and its data.
        sparsity: to prune to; 0 for not.
        seconds: for each measurement of latency.
    """
    pruned, share = case.model, 0.0
    if sparsity:
        result = onnx_sipp.prune(case.model, case.calib, sparsity=sparsity, num_samples=SAMPLES)
        pruned, share = result.model, result.report.sparsity
    feeds = [
        {name: values[number : number + 1] for name, values in case.calib.items()}
        for number in range(min(SAMPLES, len(next(iter(case.calib.values())))))
    ]
    rows = []
    for kind in KINDS:
        model, zeros = Model.load(pruned), share
        if kind:
            try:
                done = quantize(model, kind, feeds, 1)
            except onnx_sipp.SippError:
                continue  # Conv alone has no dynamic kind
            model = done.model
            zeros = sum(w.zeros for w in done.weights) / sum(w.elements for w in done.weights)
        rows.append([case.title, f"{sparsity:.0%}", kind or "none", f"{zeros:.1%}"])
        rows[-1] += _measured(case, model, seconds)
    return rows


def _measured(case: Case, model: Model, seconds: float) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        dense, packed = Path(folder) / "dense.onnx", Path(folder) / "packed.onnx"
        onnx.save(case.model, dense)
        size = onnx_sipp.pack(model.proto).save(packed)
        plain = model.proto.SerializeToString()
        whole = dense.stat().st_size
        compressed = len(zstandard.ZstdCompressor(level=9).compress(plain))
        scores = outputs(onnx.load(packed), case.test)
        few = {name: values[:16] for name, values in case.test.items()}
        found = onnx_sipp.compare(
            dense, packed, few, batch_sizes=[16], threads=[1], seconds=seconds
        )
        latency = found.latency[0]
        return [
            f"{len(plain) / whole:.3f}", f"{size / whole:.3f}", f"{compressed / whole:.3f}",
            f"{100 * accuracy(case, scores):.2f}",
            f"{latency.ratio:.2f} ± {latency.ratio_error:.2f}", heavy_nodes(packed),
        ]  # fmt: skip


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--also",
        nargs=4,
        action="append",
        default=[],
        metavar=("TITLE", "MODEL", "CALIB", "TEST"),
        help="another model with its data",
    )
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results-quantization.md")
    arguments = parser.parse_args()
    cases = [load_case(*files) for files in arguments.also]
    cases += [load_case(t, MODELS / f"{n}.onnx", CALIB, TEST) for t, n in DIGITS.items()]
    rows: list[list[str]] = []
    for case in cases:
        for sparsity in arguments.sparsities:
            for row in rows_of(case, sparsity, arguments.seconds):
                rows.append(row)
                print(" | ".join(row), flush=True)
            text = TEXT.format(
                samples=SAMPLES,
                cores=os.cpu_count(),
                machine=platform.machine(),
                flags=processor_flags(),
                table=markdown(HEADER, rows),
                command=command("table_quantized.py"),
                version=onnx_sipp.__version__,
                ort=ort.__version__,
                numpy=np.__version__,
            )
            arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
