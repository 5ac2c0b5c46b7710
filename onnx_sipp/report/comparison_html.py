"""A comparison as a page of its own."""

from __future__ import annotations

from onnx_sipp.report.comparison import Comparison, comparison_tables
from onnx_sipp.report.pages import page_of_tables

__all__ = ["comparison_html"]


def comparison_html(found: Comparison) -> str:
    """The page; names from models and files are escaped."""
    title = f"{found.dense_name} and {found.pruned_name}"
    return page_of_tables(title, comparison_tables(found), found.warnings, found.version)
