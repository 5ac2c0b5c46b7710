"""The page of the experiment: tables, a plot, and what is to be seen in them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_sipp
from isolation.methods import SNIP_BATCH
from isolation.study import DENSE, SPARSITIES, Run
from isolation.summary import Summary, summaries

__all__ = ["page"]

_CLOSE_LOOK = 0.95
TEXT = """\
# Training in isolation

The SiPP paper ends on the claim that its sub-networks "can be trained successfully in isolation".
Here that is tried. A network gets random weights; a method says which of them stay, by a look at
those random weights, or at the ones that training made of them. The rest is removed, and what stays
is trained from its **initial** weights with the mask held: what is removed is zero in every step.

- *SiPP, ranked* is `--method sipp-det` (the largest mean sensitivities of all layers together),
  *SiPP, hybrid* is `--method sipp-hybrid` (the convex budget; sampled or ranked, by the smaller
  bound). Both see images without labels. Only their masks are used, no new weights.
- *magnitude* keeps the largest weights of all layers together, *SNIP* the largest |g·w| on one
  batch of {batch} labelled images, *random* any; it looks at no weights, so it is there once.
- All remove the same share of the weights of all layers together; biases stay.
- The digits are scikit-learn's (1,200 to learn from, 597 to be judged by). Of CIFAR-10 there are
  2,000 labelled images (1,500 and 500), and 512 others, without labels, for SiPP: accuracy is low
  for everyone.
- Cells are test accuracy in per cent: mean ± standard deviation over the seeds ({seeds}). A seed
  gives the initial weights, the order of the images, and whatever the method draws.

![Accuracy against sparsity](results-isolation.svg)

{findings}

{tables}
Made by `python tools/train_in_isolation.py --cifar labelled.npz unlabelled.npz` with onnx-sipp
{version}; `--page-only` makes it anew from [all runs](results-isolation.json), without training.
"""
# Written by hand, after a look at the tables.
FINDINGS = """\
## What is to be seen

- **The claim holds, for masks that SiPP's convex budget takes from trained weights.** On the
  digits such sub-networks learn what the dense network does with 80 % of the weights removed, and
  lose a point or two at 90 %. On CIFAR-10 they lose some points at 80 %, and more at 90 %. They
  are better than random sub-networks of the same size everywhere.
- **They are not better than others.** Magnitude on the same trained weights, which needs no
  samples, does as well at 50 and 80 %, and somewhat better at 90 and 95 % (by far at 98 % with
  LeNet5).
- **On random weights** SiPP's hybrid still beats chance, clearly on the digits, by little on
  CIFAR-10. SNIP, which sees labels, is as good there or better, most of all at 95 and 98 % on the
  digits. On trained weights, where gradients are small, it loses that lead on the digits.
- **One list for all layers empties layers.** SiPP ranked by its mean sensitivities, and magnitude
  on random weights, take nearly everything from the layers with the most inputs: shares of a sum,
  and first weights too, are the smaller the more inputs a neuron has. Soon nothing passes such a
  layer, and accuracy falls to that of guessing (10 %): by magnitude on random weights from 80 %
  on in two of the three networks. A layer need not be empty for that; one that keeps a handful of
  its weights does as badly. The convex budget empties none, nor does SNIP.
- At 98 % no method gives a network that is of use on CIFAR-10, or with LeNet5.
- There are few seeds, and the CIFAR-10 task is small: differences of a point or two there are
  noise.
"""


def page(runs: Sequence[Run]) -> str:
    """The text of ``docs/results-isolation.md``."""
    found = summaries(runs)
    return TEXT.format(
        seeds=", ".join(f"{one.seeds} for {one.task}" for one in found),
        findings=FINDINGS.strip(),
        tables="\n".join(map(_section, found)),
        batch=SNIP_BATCH,
        version=onnx_sipp.__version__,
    )


def _section(summary: Summary) -> str:
    dense = summary.told("", DENSE, 0.0)
    return (
        f"## {summary.task}\n\nDense: {dense} %.\n\n{_accuracies(summary)}\n"
        "Runs in which a layer lost all its weights, so that nothing can be learned:\n\n"
        f"{_emptied(summary)}\n"
        f"Share of its weights that each layer keeps at {_CLOSE_LOOK:.0%}, in per cent, mean:\n\n"
        f"{_shares(summary)}"
    )


def _accuracies(summary: Summary) -> str:
    rows = [
        [*_named(init, method), *(summary.told(init, method, s) for s in SPARSITIES)]
        for init, method in summary.lines
    ]
    return _table(["mask by", "looking at", *(f"{s:.0%}" for s in SPARSITIES)], rows)


def _emptied(summary: Summary) -> str:
    rows = []
    for init, method in summary.lines:
        counts = [summary.emptied(init, method, sparsity) for sparsity in SPARSITIES]
        if any(counts):
            rows.append([*_named(init, method), *(f"{n} of {summary.seeds}" for n in counts)])
    if not rows:
        return "none.\n"
    return _table(["mask by", "looking at", *(f"{s:.0%}" for s in SPARSITIES)], rows)


def _shares(summary: Summary) -> str:
    rows = [
        [
            *_named(init, method),
            *(f"{100 * summary.kept(init, method, _CLOSE_LOOK, n):.1f}" for n in summary.layers),
        ]
        for init, method in summary.lines
    ]
    return _table(["mask by", "looking at", *summary.layers], rows)


def _named(init: str, method: str) -> list[str]:
    return [method, f"{init} weights" if init else "nothing"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        "| " + " | ".join(heads) + " |",
        "| --- | --- |" + " ---: |" * (len(heads) - 2),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"
