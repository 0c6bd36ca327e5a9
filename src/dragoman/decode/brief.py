"""Short descriptions of models and answers, for whoever looks at them in a shell or a notebook."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

SHOWN = 80
"""Most characters of a text."""


def described(of: object, model: nn.Module, more: Mapping[str, Any]) -> str:
    """Return one line about a model: its class, its size, its device, and ``more``."""
    parameters = list(model.parameters())
    facts = {"model": type(model).__name__, **more}
    if parameters:
        facts["device"] = str(parameters[0].device)
    return f"{type(of).__name__}({', '.join(f'{name}: {value}' for name, value in facts.items())})"


def quoted(text: str) -> str:
    """Return a text in quotes, the middle of a long one left out."""
    half = SHOWN // 2
    return repr(text if len(text) <= SHOWN else f"{text[:half]} ... {text[-half:]}")


def html_table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table for notebooks; every text in it is escaped."""

    def row(cells: Iterable[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag} dir='auto'>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"
