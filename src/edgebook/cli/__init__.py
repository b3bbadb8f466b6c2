"""The command line. Heavy modules are imported inside the commands, so that ``--help`` is instant."""

from __future__ import annotations

import sys

from edgebook.cli.numerics import settle

settle()  # before numpy loads

from edgebook.cli.app import app  # noqa: E402  (what it imports loads numpy)
from edgebook.domain.errors import EdgebookError  # noqa: E402


def main() -> None:
    """Run the command line; bad input ends in one clear line on stderr and exit code 2."""
    try:
        app()
    except EdgebookError as error:
        sys.stderr.write(f"error: {error.message}\n")
        raise SystemExit(2) from None


__all__ = ["main"]
