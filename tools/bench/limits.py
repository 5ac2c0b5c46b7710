"""How near the parts of a run come to what the machine can do."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from table_methods import markdown

from bench.files import transfers
from bench.parts import Part, arithmetic, products
from bench.timing import Effort, Timed, alternating, figures, told

__all__ = ["reached"]

HEADER = ["part", "size", "GFLOP or GB", "seconds", "rate", "limit", "share of the limit"]


def reached(
    width: int, peak: int, size: int, threads: int, folder: Path | None, effort: Effort
) -> str:
    """Measures all parts in turn with the plain works that are their limits.

    Args:
        width: Of the layer that is worked on.
        peak: Size of the matrix product that is the limit of others.
        size: Bytes of the model that is read and written.
        threads: To use.
        folder: For its files, None for a temporary one.
        effort: How often.

    Returns:
        The table.
    """
    told("limits: arithmetic")
    sums = [*products(peak, threads), *arithmetic(width, threads)]
    lines = _rows(sums, alternating({_key(part): part.work for part in sums}, effort))
    del sums
    told("limits: files")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        moves = transfers(Path(name), size)
        lines += _rows(moves, alternating({_key(part): part.work for part in moves}, effort))
    return markdown(HEADER, lines)


def _key(part: Part) -> str:
    return f"{part.name}, {part.size}"


def _rows(parts: Sequence[Part], found: dict[str, Timed]) -> list[list[str]]:
    rates = {part.name: part.amount / found[_key(part)].median / 1e9 for part in parts}
    rows = []
    for part in parts:
        timed = found[_key(part)]
        if timed.trouble:
            rows.append([part.name, part.size, "–", f"fails: {timed.trouble}", "–", "–", "–"])
            continue
        rate = part.amount / timed.median / 1e9
        plain = part.limit == part.name
        share = "" if plain else f"{100 * rate / rates[part.limit]:.0f} %"
        rows.append([
            part.name, part.size, figures(part.amount / 1e9), figures(timed.median),
            f"{figures(rate)} {part.unit}", "" if plain else part.limit, share,
        ])  # fmt: skip
    return rows
