"""An operator to be killed: mutes and unmutes one lesson for ever, each act acknowledged on standard output.

Arguments: the database's address, and the lesson.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(url: str, lesson: str) -> None:
    """Act until killed."""
    repo = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(repo), str(repo / "src")]

    from edgebook.adapters.sql import SqlStore
    from edgebook.runtime.steering import steer_at_rest

    while True:
        for act in ("mute", "unmute"):
            done = steer_at_rest(SqlStore(url), act, lesson, "ann", "to be killed")
            sys.stdout.write(f"{done['config_version']}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
