"""Pages of tables, without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_sipp.report.names import in_page

__all__ = ["page_of_tables"]

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 0 0 2rem; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .5rem 0 }
th, td { border-bottom: 1px solid #8886; padding: .25rem .75rem; text-align: right }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; min-width: 6rem }
svg { max-width: 100%; height: auto; margin: 0 0 2rem }
svg text { font-size: 12px; fill: currentColor }
.warning { border-left: .3rem solid #c80; padding-left: .7rem }
</style>
<h1>{{ title }}</h1>
{%- for warning in warnings %}
<p class="warning">{{ warning }}</p>
{%- endfor %}
{%- if plot %}
{{ plot }}
{%- endif %}
{%- for title, heads, rows in tables %}
<div class="wide"><table>
<caption>{{ title }}</caption>
<tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{%- for row in rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</table></div>
{%- endfor %}
<p>Made by onnx-sipp {{ version }}.</p>
</html>
"""


def page_of_tables(
    title: str,
    tables: Sequence[tuple[str, list[str], list[list[str]]]],
    warnings: Sequence[str],
    version: str,
    plot: str = "",
) -> str:
    """The page; names from models and files are escaped.

    Args:
        title: of the page.
        tables: titles, headings and cells.
        warnings: shown above.
        version: of onnx-sipp.
        plot: an SVG element, which is taken as it is.
    """
    import jinja2  # noqa: PLC0415 - only where a page is asked for
    import markupsafe  # noqa: PLC0415

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=in_page
    )
    template = environment.from_string(_PAGE)
    page = template.render(
        title=title,
        tables=tables,
        warnings=warnings,
        version=version,
        plot=markupsafe.Markup(plot),  # noqa: S704 - made here, of numbers alone
    )
    return page + "\n"
