"""A system to be killed: walks the small market and says on standard output how far it has come, and at the end the
head.

Arguments: the database's address, days, strands per commit.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(url: str, days: float, commit_every: int) -> None:
    """Walk from wherever the database stands."""
    repo = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(repo), str(repo / "src")]
    from tests.flow import world

    from edgebook.adapters.sql import SqlStore
    from edgebook.domain.decay import DAY
    from edgebook.runtime.scheduler import run_simulated

    settings = world.settings_for(url, commit_every_strands=commit_every)
    with world.opened(SqlStore(url), settings, world.sim_feed()) as system:
        seen = [system.desk.uow.log.head[0]]

        def watch(_: object, now: int) -> bool:
            if system.desk.uow.log.head[0] >= seen[0] + 10:
                seen[0] = system.desk.uow.log.head[0]
                sys.stdout.write(f"{seen[0]}\n")
                sys.stdout.flush()
            return True

        run_simulated(system, system.tape.start + int(days * DAY), watch)
        sys.stdout.write(f"head {system.desk.uow.log.head[1]}\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
