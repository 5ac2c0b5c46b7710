"""What kept results belong to: a model, samples, options; and what differs, for people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.specs import Feed
from onnx_sipp.graph.external import external_reference, open_checked
from onnx_sipp.graph.messages import serialized
from onnx_sipp.graph.model import Model

__all__ = ["Fingerprint", "data_digest", "model_digest"]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """What a run is about.

    Attributes:
        model: digest of the model.
        data: digest of the samples.
        options: plain data, by name.
        version: of onnx-sipp.
    """

    model: str
    data: str
    options: dict[str, Any]
    version: str

    def differences(self, other: Fingerprint) -> list[str]:
        """How another one differs, seen from this one."""
        told = []
        if self.model != other.model:
            told.append("another model")
        if self.data != other.data:
            told.append("other samples")
        names = sorted({*self.options, *other.options})
        told += [
            f"{name} {_said(other.options.get(name))} instead of {_said(self.options.get(name))}"
            for name in names
            if self.options.get(name) != other.options.get(name)
        ]
        if self.version != other.version:
            told.append(f"version {other.version} of onnx-sipp instead of {self.version}")
        return told


def model_digest(model: Model) -> str:
    """SHA-256 of a model's message and of the files with its external data.

    Raises:
        SippError: a file cannot be read.
    """
    digest = hashlib.sha256(serialized(model.proto))
    places = (external_reference(tensor).location for tensor in model.sites.external)
    for location in dict.fromkeys(places):
        with open_checked(location, model.sites.folder) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def data_digest(feeds: Iterable[Feed]) -> str:
    """SHA-256 of samples: names, types, shapes and elements, in their order.

    Raises:
        SippError: they cannot be read.
    """
    digest = hashlib.sha256()
    for feed in feeds:
        for name, value in sorted(feed.items()):
            array = np.asarray(value)
            digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
            digest.update(_elements(array))
    return digest.hexdigest()


def _elements(array: NDArray[Any]) -> bytes:
    if array.dtype.hasobject:  # its elements are places in memory
        return json.dumps(array.tolist(), default=str).encode()
    return array.tobytes()


def _said(value: Any) -> str:
    return "none" if value in (None, "", [], {}) else json.dumps(value, ensure_ascii=False)
