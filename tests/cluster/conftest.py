"""Crews do here what they do for models that are not as small."""

import pytest


@pytest.fixture(autouse=True)
def nothing_is_quick(monkeypatch):
    """Have statistics of small models measured by workers, too."""
    monkeypatch.setattr("onnx_sipp.cluster.crew.is_quick", lambda *_: False)
