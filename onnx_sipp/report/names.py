"""Names from models and files, as they may be shown."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape

__all__ = ["in_page", "json_text", "shown", "visible"]


def visible(text: str, kept: str = "") -> str:
    """Show characters that would act rather than be seen, as a Python string would be written.

    Such are the escapes that terminals obey, and marks that turn the direction of writing.

    Args:
        text: a name, or a message with names in it.
        kept: characters that stay all the same, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in kept else ascii(char)[1:-1] for char in text
    )


def in_page(value: Any) -> Any:
    """What a page shows of a value: texts without hidden characters; markup as it is."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return visible(value, "\n") if is_text else value


def json_text(value: Any) -> str:
    """A document in JSON that a terminal may print, too: such characters are written as escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def shown(text: str) -> str:
    """The same for rich to print, which would take ``[bold]`` for markup."""
    return escape(visible(text, "\n"))
