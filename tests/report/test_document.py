"""The report as a page and as text, read as a program reads it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_models import make_model, mlp, weights

from onnx_sipp import UsageError, prune
from onnx_sipp.report.document import form_of, html_cell, html_page, markdown_page
from onnx_sipp.report.drawing import parted

DATA = np.random.default_rng(0).standard_normal((30, 4), np.float32)
EVIL = "<script>alert(1)</script>\"'&\x1b[2Jx\u202ey|`*_"
VOID = {"wbr", "meta", "input", "br", "rect", "circle", "path"}


class Page(HTMLParser):
    """Collects elements, the text of table cells, and whether elements are closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.tables, self._open = [], "", [], []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in VOID:
            self._open = self._open[: -1 if self._open[-1:] == [tag] else None]
        else:
            assert self._open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data

    def count(self, tag):
        return sum(found == tag for found, _ in self.elements)


@pytest.fixture(scope="module")
def report():
    return prune(mlp(), DATA, sparsity=0.5).report


@pytest.fixture(scope="module")
def evil():
    nodes = [
        ("MatMul", "x w", "h", {"name": EVIL}),
        ("Mul", "h scale", EVIL, {"name": EVIL + "2"}),
    ]
    constants = {"w": weights(4, 3), "scale": weights(3)}
    return prune(make_model(nodes, constants, outputs=[EVIL]), DATA, sparsity=0.5).report


def test_a_page_is_whole(report):
    page = Page(html_page(report))
    titles = [table[0] for table in page.tables]
    layers = next(table for table in page.tables if table[0][:2] == ["#", "layer"])
    assert [row[1] for row in layers[1:]] == ["first", "second"]
    assert [row[5] for row in layers[1:]] == [f"{one.sparsity:.1%}" for one in report.layers]
    assert ["budget", "relative error"] in titles
    # A bar per layer, and the same once more in the way through the network.
    bars = [dict(a) for tag, a in page.elements if tag == "rect" and "bar s" in a["class"]]
    assert len(bars) == 2 * len(report.layers) + len("01234")


def test_a_page_needs_nothing_from_elsewhere(report):
    text = html_page(report)
    page = Page(text)
    assert not [a for _, a in page.elements if {"src", "href", "style", "onclick"} & set(a)]
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?://", text)


def test_the_policy_lets_only_its_own_script_and_style_act(report):
    text = html_page(report)
    policy = next(a["content"] for t, a in Page(text).elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert policy.count("sha256-") == 2


def test_names_do_nothing(evil):
    for text in (html_page(evil), html_cell(evil)):
        assert "<script>alert" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert r"\x1b[2Jx\u202ey" in Page(text).text
    assert Page(html_page(evil)).count("script") == 1


def test_names_may_be_broken_between_their_parts():
    assert parted("/layer1/conv.weight:0") == "/<wbr>layer1/<wbr>conv.<wbr>weight:<wbr>0"
    assert parted("<b>/x\x1b") == r"&lt;b&gt;/<wbr>x\x1b"


def test_names_are_no_markdown(evil):
    text = markdown_page(evil)
    assert "\x1b" not in text
    assert r"\<script\>alert(1)\</script\>" in text
    rows = [line for line in text.splitlines() if line.startswith(r"| \<script\>")]
    assert rows
    for row in rows:  # the bar in the name is no border
        assert len(re.findall(r"(?<!\\)\|", row)) in (5, 9)


def test_markdown_has_the_same_numbers(report):
    text = markdown_page(report)
    for layer in report.layers:
        assert (
            f"| {layer.name} | Gemm | {'×'.join(map(str, layer.shape))} | {layer.sparsity:.1%} |"
            in text
        )
    assert f"zeros among prunable weights: **{report.sparsity:.2%}**" in text
    assert "    onnx-sipp compare IN.onnx OUT.onnx --data test.npz" in text


def test_the_same_report_makes_the_same_page(report):
    assert html_page(report) == html_page(replace(report))


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 0.5, "method": "sipp-hybrid"},
        {"epsilon": 2.0, "delta": 0.1, "method": "sipp-det"},
        {"pattern": "2:4"},
        {"pattern": "2x1", "sparsity": 0.5},
        {"pattern": "channels", "macs": 0.6, "align": 1},
        {"sparsity": 0.5, "storage": "packed"},
    ],
    ids=str,
)
def test_every_kind_of_run_has_a_page(options):
    result = prune(mlp(), DATA, **options)
    page = Page(result.html())
    assert all(hint in page.text for hint in ("compare IN.onnx", "Before and after"))
    assert ("trtexec" in page.text) == (options.get("pattern") == "2:4")
    assert ("unpack" in page.text) == (options.get("storage") == "packed")
    assert markdown_page(result.report).startswith("# A model, pruned\n")
    assert Page(result._repr_html_()).count("table") == 1


def test_infinite_and_missing_numbers():
    """A layer that no sample reached has no error, and an infinite ε."""
    report = prune(mlp(), DATA, sparsity=0.5).report
    odd = replace(
        report.layers[0], epsilon_worst=np.inf, epsilon_median=np.inf, measured_error=np.nan
    )
    large = replace(report.layers[1], epsilon_median=148.0, epsilon_worst=2.34e12)
    page = Page(html_page(replace(report, layers=[odd, large])))
    cells = [a["data-v"] for tag, a in page.elements if tag == "td" and "data-v" in a]
    assert "Infinity" in cells
    assert "" in cells
    assert "nan" not in cells
    layers = next(table for table in page.tables if table[0][:2] == ["#", "layer"])
    assert layers[1][6:9] == ["∞", "∞", "not seen"]
    assert layers[2][6:8] == ["150", "2.3e+12"]


def test_a_page_of_many_layers_is_small(report):
    many = [replace(report.layers[0], name=f"layer{n}" * 8) for n in range(60)]
    assert len(html_page(replace(report, layers=many)).encode()) < 1 << 20


def test_forms(report):
    assert json.loads(form_of(Path("a.JSON"))(report))["zeros"] == 28
    assert form_of(Path("a/b.html")) is html_page
    with pytest.raises(UsageError, match=r"\.html, \.md or \.json, not 'report\.txt'"):
        form_of(Path("report.txt"))
