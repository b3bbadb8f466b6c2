"""``--report`` of ``edgebook lessons`` and ``learn``: what was learnt as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def tell_report(found: Mapping[str, Any], path: Path, as_json: bool) -> None:
    """Write the page of the facts; print what was learnt in a sentence, or all the facts as JSON.

    Raises:
        InputError: the page cannot be written.
    """
    from edgebook.runtime.report.lessons import write_page

    write_page(found, path)
    typer.echo(json.dumps(found) if as_json else f"{found['head']['sentence']} The page is {path}.")
