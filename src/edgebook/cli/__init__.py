"""The command line. Heavy modules are imported inside the commands, so that ``--help`` is instant."""

from __future__ import annotations

import os
import sys

# One thread per process: the kernels are small, and more threads could change the last digits of a fit. Before numpy
# loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from edgebook.cli.app import app
from edgebook.domain.errors import EdgebookError


def main() -> None:
    """Run the command line; bad input ends in one clear line on stderr and exit code 2."""
    try:
        app()
    except EdgebookError as error:
        sys.stderr.write(f"error: {error.message}\n")
        raise SystemExit(2) from None


__all__ = ["main"]
