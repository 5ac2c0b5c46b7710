"""What the budget knows of the dense layers, in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from onnx_sipp.keeping.archive import Archive, Member, understanding, write_archive
from onnx_sipp.pruning.survey import Impact, Survey

__all__ = ["Surveys", "read_surveys", "write_surveys"]

_FORM = "onnx-sipp survey 1"

# By whether every neuron keeps the same share, a curve by the index of the weight.
Surveys = dict[bool, dict[int, Survey]]


def write_surveys(path: Path, surveys: Surveys, impacts: Mapping[int, Impact]) -> None:
    """Write curves and impacts, whole or not at all.

    Raises:
        SippError: writing failed.
    """
    rows = [
        {
            "way": way,
            "weight": index,
            "points": survey.costs.size,
            "dtype": survey.costs.dtype.str,
            "times": survey.times is not None,
            "power": survey.power,
            "capacity": survey.capacity,
        }
        for way, found in surveys.items()
        for index, survey in found.items()
    ]
    told = [{"weight": index, "impact": asdict(impact)} for index, impact in impacts.items()]
    write_archive(path, {"form": _FORM, "curves": rows, "impacts": told}, _members(surveys))


def _members(surveys: Surveys) -> Iterator[Member]:
    curves = [survey for found in surveys.values() for survey in found.values()]
    for number, survey in enumerate(curves):
        yield Member.of(f"{number}.costs", survey.costs)
        if survey.times is not None:
            yield Member.of(f"{number}.times", survey.times)


def read_surveys(path: Path) -> tuple[Surveys, dict[int, Impact]]:
    """Read what `write_surveys` has written.

    Raises:
        SippError: the file is damaged, or another one.
    """
    archive = Archive(path, _FORM)
    surveys: Surveys = {False: {}, True: {}}
    impacts: dict[int, Impact] = {}
    with understanding(path):
        for number, row in enumerate(archive.header["curves"]):
            surveys[bool(row["way"])][int(row["weight"])] = _survey(archive, number, row)
        for told in archive.header["impacts"]:
            index = int(told["weight"])
            impacts[index] = Impact(**told["impact"])
    return surveys, impacts


def _survey(archive: Archive, number: int, row: Mapping[str, Any]) -> Survey:
    points, dtype = (int(row["points"]),), np.dtype(str(row["dtype"]))
    return Survey(
        archive.read(f"{number}.costs", points, dtype),
        archive.read(f"{number}.times", points, np.int64) if row["times"] else None,
        float(row["power"]),
        int(row["capacity"]),
    )
