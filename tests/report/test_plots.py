"""Plots, read as the XML that they are."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from small_models import mlp

from onnx_sipp import prune
from onnx_sipp.report.flow_plot import flow_plot
from onnx_sipp.report.plots import (
    certificate_plot,
    curve_plot,
    level,
    sensitivity_plot,
    sparsity_plot,
)
from onnx_sipp.report.svg import Canvas, Scale

DATA = np.random.default_rng(0).standard_normal((30, 4), np.float32)
EVIL = "<b onclick='x'>\"&\x1b"


@pytest.fixture(scope="module")
def report():
    return prune(mlp(), DATA, sparsity=0.5).report


def shapes(image, look):
    return [one for one in ET.fromstring(image) if look in one.get("class", "").split()]


def test_bars_are_as_high_as_layers_are_sparse(report):
    layers = [replace(report.layers[0], zeros=zeros) for zeros in (0, 8, 16, 32)]
    bars = shapes(sparsity_plot(layers), "bar")
    heights = [float(bar.get("height")) for bar in bars]
    assert np.allclose(np.diff(heights), np.diff([0, 8, 16, 32]) / 32 * 146, atol=0.2)
    assert [bar.get("class") for bar in bars] == ["bar s0", "bar s2", "bar s5", "bar s10"]


def test_certified_and_measured_errors_share_a_scale(report):
    layer = replace(report.layers[0], epsilon_median=0.1, epsilon_worst=10.0, measured_error=1.0)
    image = certificate_plot([layer])
    (bar,), (dot,), (limit,) = (shapes(image, name) for name in ("certified", "measured", "limit"))
    top, height = float(bar.get("y")), float(bar.get("height"))
    assert float(dot.get("cy")) == pytest.approx(top + height / 2, abs=0.1)
    assert f" {dot.get('cy')}L" in limit.get("d")


def test_no_error_is_told_from_a_small_one(report):
    image = certificate_plot([replace(report.layers[0], measured_error=0.0), report.layers[1]])
    assert len(shapes(image, "unhurt")) == len(shapes(image, "measured")) == 1


def test_infinite_certificates_reach_the_end_of_the_scale(report):
    layer = replace(
        report.layers[0], epsilon_median=np.inf, epsilon_worst=np.inf, measured_error=np.nan
    )
    assert certificate_plot([layer]) == ""
    image = certificate_plot([layer, report.layers[1]])
    assert len(shapes(image, "certified")) == 2
    assert len(shapes(image, "measured")) == 1
    assert "nan" not in image
    assert "inf" not in image


def test_the_budget_lies_on_the_curve(report):
    curve = report.layers[0].curve
    image = curve_plot(curve, curve.sparsities[20])
    (dot,) = shapes(image, "measured")
    line = shapes(image, "curve")[0].get("d")[1:].split("L")
    assert line[20] == f"{dot.get('cx')} {dot.get('cy')}"
    assert len(line) == len(curve.sparsities)


def test_areas_of_a_histogram_stand_on_each_other(report):
    found = report.layers[0].sensitivities
    image = sensitivity_plot(found)
    tops = [
        [float(point.split()[1]) for point in shapes(image, name)[0].get("d")[1:].split("L")]
        for name in ("kept", "dropped")
    ]
    assert all(all_ <= dropped for all_, dropped in zip(*tops, strict=True))


def test_steps_are_joined_to_their_sources(report):
    image = flow_plot(report.steps, report.layers)
    edges = shapes(image, "edge")
    assert len(edges) == sum(len(step.sources) for step in report.steps)
    assert len(shapes(image, "bar")) == len(report.layers)


def test_names_do_nothing(report):
    step = replace(report.steps[1], name=EVIL)
    layer = replace(report.layers[0], name=EVIL)
    for image in (flow_plot([step], []), sparsity_plot([layer]), certificate_plot([layer])):
        assert "\x1b" not in image
        assert not list(ET.fromstring(image).iter("b"))


def test_levels():
    assert [level(value) for value in (-1, 0, 0.04, 0.06, 0.5, 1, 2)] == [
        "s0", "s0", "s0", "s1", "s5", "s10", "s10",
    ]  # fmt: skip


def test_scales():
    plain, log = Scale(0, 10, 100, 0), Scale(1, 100, 0, 10, logarithmic=True)
    assert [plain(value) for value in (-5, 0, 5, 20)] == [100, 100, 50, 0]
    assert [log(value) for value in (0, 1, 10, 1e9)] == pytest.approx([0, 0, 5, 10])


def test_a_canvas_is_well_formed():
    canvas = Canvas(10, 20.25, EVIL)
    canvas.rect((0, 0), (1, 2), "a", EVIL)
    canvas.text((0, 0), EVIL, "b")
    found = ET.fromstring(canvas.image)
    assert (found.get("width"), found.get("height")) == ("10", "20.2")
    assert found[0][0].text == found[1].text == "<b onclick='x'>\"&\\x1b"
