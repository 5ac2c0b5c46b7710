"""A refitter of two layers, for tests of what it is made of."""

from small_models import make_model, weights

from onnx_sipp.checked import checked_options
from onnx_sipp.preparing import prepare
from onnx_sipp.progress import Silent

PROTO = make_model(
    [("MatMul", "x v", "h"), ("Relu", "h", "a"), ("MatMul", "a w", "y")],
    {"v": weights(6, 8), "w": weights(8, 3, seed=1)},
    {"x": ["n", 6]},
)


def opened(samples=80, **options):
    data = weights(samples, 6, seed=5)
    return prepare(PROTO, data, checked_options(options), Silent()).refitter()
