"""A report as a page of its own, as markdown, and as a cell of a notebook."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from math import isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_sipp.errors import UsageError
from onnx_sipp.report.advice import guaranteed, hints, sparse_cores, zeros_buy
from onnx_sipp.report.names import in_page, visible
from onnx_sipp.report.packing import packing_sentence
from onnx_sipp.report.quantizing import quantizing_sentence
from onnx_sipp.report.result import Report
from onnx_sipp.report.search import goal_text, search_rows
from onnx_sipp.report.totals import total_rows

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["form_of", "html_cell", "html_page", "markdown_page"]

# What markdown takes for something else than itself.
_MARKS = re.compile(r"([\\`*_\[\]<>|#~])")


def form_of(path: Path) -> Callable[[Report], str]:
    """How a report is written to a file of such a name.

    Raises:
        UsageError: the name does not say.
    """
    forms = {".html": html_page, ".md": markdown_page, ".json": Report.to_json}
    if path.suffix.lower() not in forms:
        raise UsageError(f"the name of a report ends in .html, .md or .json, not {str(path)!r}")
    return forms[path.suffix.lower()]


def html_page(report: Report) -> str:
    """A page that needs nothing from elsewhere; names are escaped, and no other script runs."""
    page = _environment("html")
    style, script = page.get_template("report.css").render(), _source(page, "report.js")
    from onnx_sipp.report.drawing import key, plots_of  # noqa: PLC0415 - only where they are drawn

    text = page.get_template("report.html.j2").render(
        **_common(report), style=style, script=script, key=key, plots=plots_of(report)
    )
    return f"{text}\n"


def html_cell(report: Report) -> str:
    """A short form of it for notebooks, without styles or scripts of its own."""
    return _environment("html").get_template("cell.html.j2").render(**_common(report))


def markdown_page(report: Report) -> str:
    """The same as text, but for the plots."""
    return _environment("md").get_template("report.md.j2").render(**_common(report))


def _common(report: Report) -> dict[str, Any]:
    return {
        "report": report,
        "cards": _cards(report),
        "changes": _changes(report),
        "totals": total_rows(report),
        "refitted": any(layer.candidate for layer in report.layers),
        "zeros_buy": " ".join([*_afterwards(report), zeros_buy(report)]),
        "guaranteed": guaranteed(report),
        "cores": sparse_cores(report) if report.options["pattern"] else [],
        "hints": hints(report),
        "goal": goal_text(report.search.goals) if report.search else "",
        "search": search_rows(report.search) if report.search else None,
    }


def _afterwards(report: Report) -> list[str]:
    """What was done to the pruned model."""
    done = []
    if report.quantization is not None:
        done.append(quantizing_sentence(report.quantization))
    if report.packing is not None:
        done.append(packing_sentence(report.packing))
    return done


def _cards(report: Report) -> list[tuple[str, str]]:
    """What one wants to know first."""
    if report.cut is None:
        cards = [("zeros among prunable weights", f"{report.sparsity:.2%}")]
    else:
        share = report.cut.macs_after / max(report.cut.macs_before, 1)
        cards = [("multiply-adds that stay", f"{share:.1%}")]
    agreements = [o.top1_agreement for o in report.outputs if o.top1_agreement is not None]
    if agreements:
        cards.append(("top-1 agreement", f"{min(agreements):.1%}"))
    errors = [o.relative_error for o in report.outputs if o.relative_error is not None]
    if errors:
        cards.append(("relative error", f"{max(errors):.3g}"))
    if report.bytes_before and report.bytes_after:
        cards.append(("size of the file", f"{report.bytes_after / report.bytes_before:.1%}"))
    return [*cards, ("time taken", f"{report.seconds:.1f} s")]


def _changes(report: Report) -> list[tuple[str, str, str]]:
    cut, prunable = report.cut, report.prunable
    if cut is None:
        before, after = report.zeros_before, report.zeros
        title = "prunable weights that are not zero"
        rows = [(title, f"{prunable - before:,}", f"{prunable - after:,}")]
        shares = [f"{count / max(prunable, 1):.2%}" for count in (before, after)]
        rows.append(("zeros among prunable weights", shares[0], shares[1]))
    else:
        rows = [
            ("multiply-adds", f"{cut.macs_before:,}", f"{cut.macs_after:,}"),
            ("parameters", f"{cut.parameters_before:,}", f"{cut.parameters_after:,}"),
        ]
        if cut.latency is not None:
            rows.append(("time in onnxruntime", "100%", f"{cut.latency:.1%}"))
    if report.bytes_before is not None and report.bytes_after is not None:
        rows.append(("bytes", f"{report.bytes_before:,}", f"{report.bytes_after:,}"))
    return rows


@cache
def _environment(form: str) -> Environment:
    """Templates for pages or for markdown."""
    import jinja2  # noqa: PLC0415 - heavy; only where a page is asked for

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onnx_sipp", "report/templates"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        finalize=in_page if form == "html" else _in_markdown,
        keep_trailing_newline=True,
    )
    from onnx_sipp.report.drawing import parted  # noqa: PLC0415
    from onnx_sipp.report.plots import level  # noqa: PLC0415

    environment.filters.update(
        figure=_figure, sortable=_sortable, plain=_plain, level=level, digest=_digest,
        verbatim=_Raw, parted=parted,
    )  # fmt: skip
    return environment


class _Raw(str):
    """Text that needs no more care."""

    __slots__ = ()


def _in_markdown(value: Any) -> Any:
    if not isinstance(value, str) or isinstance(value, _Raw):
        return value
    return _MARKS.sub(r"\\\1", visible(value.replace("\n", " ")))


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _figure(value: float | None, form: str, missing: str = "") -> str:
    """A number as people read it; without powers of ten where digits do."""
    if value is None or isnan(value):
        return missing
    text = form.format(value).replace("inf", "∞")
    return f"{float(text):,.0f}" if "e+0" in text else text


def _sortable(value: float | None) -> str:
    if value is None or isnan(value):
        return ""
    return repr(value) if isfinite(value) else "Infinity"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _digest(text: str) -> str:
    """As a content security policy names a script or style that may act."""
    found = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(found).decode()}"
