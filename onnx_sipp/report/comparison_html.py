"""A comparison as a page of its own, without anything from elsewhere."""

from __future__ import annotations

from onnx_sipp.report.comparison import Comparison, comparison_tables

__all__ = ["comparison_html"]

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ found.dense_name }} and {{ found.pruned_name }}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 0 0 2rem; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .5rem 0 }
th, td { border-bottom: 1px solid #8886; padding: .25rem .75rem; text-align: right }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere }
.warning { border-left: .3rem solid #c80; padding-left: .7rem }
</style>
<h1>{{ found.dense_name }} and {{ found.pruned_name }}</h1>
{%- for warning in found.warnings %}
<p class="warning">{{ warning }}</p>
{%- endfor %}
{%- for title, heads, rows in tables %}
<table>
<caption>{{ title }}</caption>
<tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{%- for row in rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</table>
{%- endfor %}
<p>Made by onnx-sipp {{ found.version }}.</p>
</html>
"""


def comparison_html(found: Comparison) -> str:
    """The page; names from models and files are escaped."""
    import jinja2  # noqa: PLC0415 - only where a page is asked for

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_PAGE)
    return template.render(found=found, tables=comparison_tables(found)) + "\n"
