"""``python -m edgebook``: the same command line as ``edgebook``."""

from __future__ import annotations

from edgebook.cli import main

if __name__ == "__main__":
    main()
