"""Run a model in onnxruntime and hand out the tensors that were asked for, sample by sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from onnx_sipp.calibration.session import open_session, run_session
from onnx_sipp.calibration.specs import Feed, InputSpec, input_specs, output_specs
from onnx_sipp.graph.model import Model

__all__ = ["Runner", "is_large"]

Tensor = NDArray[Any]

# A model whose constants take more is never run as a whole.
LARGE_BYTES = 128 << 20


def is_large(model: Model) -> bool:
    """Whether the constants of a model are too much to have in memory all at once."""
    return sum(map(model.constant_bytes, model.stored)) > LARGE_BYTES


class Runner:
    """An onnxruntime session on a model, with extra tensors among its outputs.

    Args:
        model: to run.
        taps: tensors to hand out; the model's own inputs and outputs may be among them. None for
            the model's outputs.
        threads: intra-op threads, None for onnxruntime's default.
        providers: execution providers, None for the CPU.
        brief: only a few samples will be run.

    Attributes:
        taps: these tensors, each once.
        model: itself.

    Raises:
        SippError: onnxruntime refuses the model; where only inputs are tapped, once it is asked.
    """

    def __init__(
        self,
        model: Model,
        taps: Sequence[str] | None = None,
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        brief: bool = False,
    ) -> None:
        fed = {value.name for value in model.proto.graph.input} - set(model.stored)
        outputs = [value.name for value in model.proto.graph.output]
        self.taps = list(dict.fromkeys(outputs if taps is None else taps))
        self.model = model
        self._computed = [name for name in self.taps if name not in fed]
        self._threads, self._providers, self._brief = threads, providers, brief
        if self._computed:  # else there is nothing to run, and maybe nobody asks
            _ = self._session

    @cached_property
    def _session(self) -> Any:
        data, folder, lent = self.model.runnable(self._computed)
        return open_session(
            data,
            folder=folder,
            threads=self._threads,
            providers=self._providers,
            libraries=self.model.libraries,
            lent=lent,
            idle=not self._computed,
            brief=self._brief,
        )

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What the model takes."""
        return input_specs(self._session, self.model.proto)

    @property
    def outputs(self) -> tuple[InputSpec, ...]:
        """What the session gives, as far as it is tensors of numbers."""
        return output_specs(self._session, self.model.proto)

    def run(self, feed: Feed) -> dict[str, Tensor]:
        """Run one feed and return the tapped tensors by name.

        Raises:
            SippError: the runtime fails on this input.
        """
        values = run_session(self._session, self._computed, feed) if self._computed else []
        result = dict(zip(self._computed, values, strict=True))
        return {name: result[name] if name in result else feed[name] for name in self.taps}

    def run_all(self, feeds: Iterable[Feed]) -> Iterator[list[Mapping[str, Tensor]]]:
        """Run feeds, as the only stage of a `batching.Tried`."""
        yield [self.run(feed) for feed in feeds]
