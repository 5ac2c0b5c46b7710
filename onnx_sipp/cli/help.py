"""Help that is grouped by purpose, and fits on a screen and a half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

__all__ = ["WIDTH", "GroupedCommand"]

# As wide as help gets, and the part of it that names of options take.
WIDTH = 100
_NAMES = 25


class GroupedCommand(click.Command):
    """A command whose options stand in sections.

    Args:
        sections: titles, each with names of options in their order. What none of them names ends
            the last one.
        **settings: those of `click.Command`.
    """

    def __init__(self, *, sections: Mapping[str, Sequence[str]], **settings: Any) -> None:
        super().__init__(**settings)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, with one column for the names of all."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        rows: dict[str | None, tuple[str, str]] = {}
        for option in options:
            called, told = option.get_help_record(ctx) or ("", "")
            rows[option.name] = (_without_aliases(called, option).ljust(_NAMES), told)
        sections: dict[str, list[str | None]] = {
            title: [*names] for title, names in self.sections.items()
        }
        named = {name for names in sections.values() for name in names}
        # The help itself, and what is so new that it has no section yet.
        [*sections.values()][-1].extend(name for name in rows if name not in named)
        for title, names in sections.items():
            with formatter.section(title):
                formatter.write_dl([rows[name] for name in names], col_max=_NAMES)


def _without_aliases(names: str, option: click.Option) -> str:
    """Leave out all long names but the first; the others are those that other tools have."""
    for alias in [name for name in option.opts if name.startswith("--")][1:]:
        names = names.replace(f", {alias}", "")
    return names
