"""Prunes a streaming model of audio, and measures whole sequences with the states fed back.

    python tools/bench_streaming.py silero_vad.onnx --set sr=16000 --context 64
    python tools/bench_streaming.py model.onnx --frame 256 --state hidden=new_hidden

The model takes frames ``[1, context + frame]`` of audio as its one input that is no state and not
set. Audio is made up (see `speech.py`): some sequences to calibrate on, others to measure on. Dense
and pruned model each feed their own states. Prints a table.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from speech import Float32, frames, utterance

import onnx_sipp
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.calibration.states import find_states
from onnx_sipp.graph.model import Model

TEST_SEED = 1 << 20


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rate", type=int, default=16000)
    parser.add_argument("--frame", type=int, default=512)
    parser.add_argument("--context", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--state", action="append", default=[], metavar="IN=OUT")
    parser.add_argument("--sparsity", type=float, default=0.3)
    parser.add_argument("--methods", default="mixed,wanda,magnitude")
    parser.add_argument("--sequences", type=int, default=12)
    parser.add_argument("--test-sequences", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Streaming:
    """A model that is run frame by frame.

    Args:
        proto: the model.
        states: inputs that are fed back, and the outputs they come from.
        fixed: values of inputs that never change.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        states: Mapping[str, str],
        fixed: Mapping[str, NDArray[np.generic]],
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        data = proto.SerializeToString()
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._states, self._fixed = states, fixed
        inputs = {value.name: value for value in self._session.get_inputs()}
        (self.audio,) = inputs.keys() - states.keys() - fixed.keys()
        self._zeros = {
            name: np.zeros([d if isinstance(d, int) else 1 for d in inputs[name].shape], np.float32)
            for name in states
        }
        outputs = [value.name for value in self._session.get_outputs()]
        self.results = [name for name in outputs if name not in states.values()]
        self._outputs = outputs

    def run(self, sequence: Sequence[Float32] | Float32) -> Float32:
        """The results of every frame of a sequence: ``[frames, numbers]``."""
        state, rows = dict(self._zeros), []
        for frame in sequence:
            feed = {self.audio: frame[None], **self._fixed, **state}
            made = dict(zip(self._outputs, self._session.run(None, feed), strict=True))
            state = {name: made[output] for name, output in self._states.items()}
            rows.append(np.concatenate([made[name].ravel() for name in self.results]))
        return np.array(rows)


def main() -> None:
    """Print the table."""
    given = arguments()
    model = Model.load(given.model)
    runner = Runner(model, [])
    named = dict(pair.split("=", 1) for pair in given.state)
    states = named or find_states(runner.inputs, runner.outputs)
    kinds = {spec.name: spec.dtype for spec in runner.inputs}
    pairs = (pair.split("=", 1) for pair in given.set)
    fixed = {name: np.array(float(value)).astype(kinds[name]) for name, value in pairs}
    dense = Streaming(model.inlined(), states, fixed)

    def sequences(seed: int, count: int) -> Iterator[Float32]:
        for index in range(count):
            rng = np.random.default_rng([seed, index])
            audio = utterance(rng, given.rate, given.seconds)
            yield frames(audio, given.frame, given.context)

    tests = list(sequences(TEST_SEED + given.seed, given.test_sequences))
    expected = np.concatenate([dense.run(sequence) for sequence in tests])
    print(f"states {states}; {len(expected)} frames in {len(tests)} sequences to measure on")
    print("| method | zeros | relative error | mean difference | same side of 0.5 | seconds |")
    print("|---|---|---|---|---|---|")
    for method in given.methods.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for index, sequence in enumerate(sequences(given.seed, given.sequences)):
                np.savez(Path(folder, f"{index:04}.npz"), **{dense.audio: sequence}, **fixed)
            started = time.perf_counter()
            result = onnx_sipp.prune(
                given.model, folder, sparsity=given.sparsity, method=method, states=states,
                num_samples=10**6,
            )  # fmt: skip
            seconds = time.perf_counter() - started
        pruned = Streaming(result.model, states, fixed)
        found = np.concatenate([pruned.run(sequence) for sequence in tests])
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        same = np.mean((found > 0.5) == (expected > 0.5))
        print(
            f"| {method} | {result.report.sparsity:.1%} | {error:.4f} "
            f"| {np.abs(found - expected).mean():.5f} | {same:.2%} | {seconds:.0f} |",
            flush=True,
        )
    print(
        f"onnx-sipp {onnx_sipp.__version__}, onnx {onnx.__version__}, onnxruntime {ort.__version__}"
    )


if __name__ == "__main__":
    main()
