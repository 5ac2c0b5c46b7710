"""A crew of workers: what is handed out, and how the results are put together.

How work is parted does not depend on how many workers there are, nor who does what, nor on what has
to be done again because a worker died; so the result does not, either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

from numpy.typing import DTypeLike, NDArray

from onnx_sipp.budgeting.affordable import trials
from onnx_sipp.budgeting.budgets import Budgets
from onnx_sipp.budgeting.known import Known
from onnx_sipp.budgeting.looks import LayerLook
from onnx_sipp.calibration.execution import Tensors
from onnx_sipp.calibration.runner import is_large
from onnx_sipp.cluster import tasks
from onnx_sipp.cluster.handing_out import in_turn, largest_first, told
from onnx_sipp.cluster.pool import Pool
from onnx_sipp.cluster.shards import is_light, is_quick, merged, ranges_of, shards_for
from onnx_sipp.cluster.site import Payload, Sensed, Statistics
from onnx_sipp.keeping.outcomes import OutcomeForm
from onnx_sipp.measures import Measured
from onnx_sipp.outcome import Outcome
from onnx_sipp.prepared import Prepared
from onnx_sipp.progress import Progress
from onnx_sipp.refitting.batches import UnevenError
from onnx_sipp.statistics.sensitivity import load_early
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = ["Crew"]


class Crew:
    """Workers that know the model and the samples; see `Workers`.

    Args:
        pool: gives what runs their tasks; asked when there is something to do.
    """

    def __init__(self, pool: Callable[[], Pool]) -> None:
        self._hire = pool
        self._can_survey, self._is_large, self._is_light = True, False, False
        self._measures = True
        self._patches = 0.0
        self._found: Prepared | None = None
        self._known = Tensors()
        self._measured: Sequence[Measured] = ()
        self._seen: Any = None
        self._sums: dict[int, Any] = {}
        self._beside = ThreadPoolExecutor(1)
        self._telling: Future[None] | None = None

    def take(self, found: Prepared) -> None:
        """Begin with another run.

        Workers are told of it while statistics are measured here, if they will have something to
        do; else as soon as they have.
        """
        self._found, self._known = found, found.execution.known
        self._is_large = is_large(found.lowered)
        sizes = [weight.size for weight in found.weights]
        # Sums of layers that share a weight are added up in one order, whoever gathers them.
        shared = any(len(weight.layers) > 1 for weight in found.weights)
        given = len(found.observed), found.patches, sizes
        self._is_light = not shared and is_light(*given)
        self._measures = not self._is_light and not is_quick(*given)
        if not self._measures:
            load_early()  # statistics are measured here
        self._patches = found.patches
        self._can_survey = not self._is_large
        self._seen, self._sums = None, {}
        if not self._measures and self._is_awaited(found):
            self._telling = self._beside.submit(self._tell, self._payload())

    def close(self) -> None:
        """End what is done beside."""
        self._beside.shutdown()

    def _is_awaited(self, found: Prepared) -> bool:
        """Whether it is clear that workers will look at layers."""
        weights, options = found.weights, found.options
        if not self._can_survey or not Budgets(weights, (), found.rules, (), ()).by_error(options):
            return False
        work = found.patches * sum(weight.size for weight in weights)
        return not self._is_light or trials(weights, work, found.samples, options.allocation)[0]

    @cached_property
    def _pool(self) -> Pool:
        return self._hire()

    def _equipped(self) -> Pool:
        """The pool, all workers of which know what the run is about."""
        if self._telling is not None:
            telling, self._telling = self._telling, None
            telling.result()
        if self._found is not None:
            self._tell(self._payload())
        return self._pool

    def _payload(self) -> Payload:
        assert self._found is not None
        payload, self._found = Payload.of(self._found), None
        shapes = {tuple(sorted((n, v.shape) for n, v in f.items())) for f in payload.feeds}
        # What samples of several lengths have of patches cannot be told from some of them.
        self._can_survey &= len(shapes) == 1
        return payload

    def _tell(self, payload: Payload) -> None:
        self._pool.equip(payload)

    def learn(self, measured: Sequence[Measured]) -> None:
        """Take the statistics that everything later rests on."""
        self._measured = measured

    def statistics(
        self,
        weights: Sequence[Weight],
        samples: int,
        patches: float,
        progress: Progress,
        store: TensorStore,
    ) -> list[Measured] | None:
        """See `Workers.statistics`."""
        if not self._measures:
            return None
        pool = self._equipped()
        shards = ranges_of([1] * samples, shards_for(samples, patches))
        parts = [pool.submit(tasks.statistics, shard) for shard in shards]
        whole = merged(parts, partial(pool.submit, tasks.merge_statistics))
        for shard, _ in zip(shards, pool.as_done(parts), strict=True):
            progress.advance(len(shard), samples)
        made = zip(weights, pool.result(whole), strict=True)
        return [one.measured(weight, store) for weight, one in made]

    def survey(
        self,
        known: Known,
        indices: Sequence[int],
        sizes: Sequence[int],
        progress: Progress,
        *,
        alone: bool,
    ) -> list[LayerLook] | None:
        """See `Workers.survey`."""
        if not self._can_survey or (self._is_light and not alone):
            return None
        pool = self._equipped()
        if not self._can_survey:
            return None
        seen = self._shared()
        with told(pool, known) as state:
            try:
                sums = self._sums_of(known.capacities, sizes)
                order = largest_first(indices, known.capacities)
                jobs = [
                    partial(pool.submit, tasks.look, seen, state, index, sums[index], alone)
                    for index in order
                ]
                looks = {}
                # Tasks that bring data go where it is, and it travels while others run.
                for place, task in in_turn(jobs, pool, all_at_once=not self._is_light):
                    looks[order[place]] = pool.result(task)
                    progress.advance(1, len(order))
                return [looks[index] for index in indices]
            except UnevenError:
                self._can_survey = False  # what cannot be parted once never can
                return None

    def _sums_of(self, capacities: Sequence[int], sizes: Sequence[int]) -> Mapping[int, Any]:
        """Sums of all weights, which stay with the workers; they are the same for all goals.

        None where every worker gathers those that it needs in less time than they travel.
        """
        weights = range(len(capacities))
        if self._is_light:
            return dict.fromkeys(weights)
        if not self._sums:
            pool, seen = self._pool, self._shared()
            ranges = ranges_of(sizes, shards_for(sum(sizes), self._patches))
            parts = [pool.submit(tasks.sums, seen, part, sizes) for part in ranges]
            for index in largest_first(weights, capacities):
                own = [pool.submit(tasks.of_weight, part, index) for part in parts]
                self._sums[index] = merged(own, partial(pool.submit, tasks.merge_sums))
        return self._sums

    def compare(
        self, known: Known, plans: Sequence[str], form: OutcomeForm, progress: Progress
    ) -> tuple[dict[str, float], Outcome]:
        """See `Workers.compare`.

        As soon as a worker has nothing else to do, a careful pass by the best budget so far is
        begun; it is given up if a later trial does better.
        """
        pool, seen = self._equipped(), self._shared()
        # Budgets that have looked at the outputs do best most often. They come first, so that what
        # is begun early is seldom in vain.
        order = plans[::-1]
        errors: dict[str, float] = {}
        begun: dict[str, Any] = {}
        with told(pool, known) as state:
            tried = [pool.submit(tasks.trial, seen, state, name) for name in order]
            for place in pool.as_done(tried):
                errors[order[place]] = pool.result(tried[place])
                progress.advance(1, len(plans) + 1)
                best = min(errors, key=lambda name: (errors[name], plans.index(name)))
                if begun and best not in begun:
                    pool.give_up(begun.popitem()[1])
                missing = len(plans) - len(errors)
                if not begun and (not missing or pool.has_room(missing)):
                    begun[best] = pool.submit(tasks.careful, seen, state, best)
            (careful,) = begun.values()
            outcome = self._outcome(careful, form)
        progress.advance(1, len(plans) + 1)
        return {name: errors[name] for name in plans}, outcome

    @property
    def can_compare(self) -> bool:
        """See `Workers.can_compare`."""
        return not self._is_large

    def _outcome(self, task: Any, form: OutcomeForm) -> Outcome:
        header, arrays = self._pool.result(task)
        return form.outcome(header, partial(_read, arrays))

    def _shared(self) -> Any:
        """The statistics, which every worker gets once."""
        if self._seen is None:
            weights = [Sensed.of(found) for found in self._measured]
            self._seen = self._pool.share(Statistics(weights, self._known.copied()))
        return self._seen


def _read(
    arrays: Mapping[str, NDArray[Any]], name: str, shape: Sequence[int], dtype: DTypeLike
) -> NDArray[Any]:
    del shape, dtype  # it was made by the same code
    return arrays[name]
