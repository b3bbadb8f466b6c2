"""A writer to be killed: group after group of strands, a watermark and a row, each acknowledged on standard output.

Arguments: the database's address, and strands per group.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(url: str, size: int) -> None:
    """Write until killed."""
    repo = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(repo), str(repo / "src")]
    from tests.contracts.examples import strand

    from edgebook.adapters.sql import SqlStore
    from edgebook.domain.evidence import StatRow, Watermark

    with SqlStore(url).writer() as uow:
        while True:
            seq = uow.log.head[0]
            uow.log.append([strand(number) for number in range(seq + 1, seq + 1 + size)])
            seq += size
            uow.watermarks.put(Watermark("killed", seq))
            uow.stats.put(StatRow("pm", "trend", "entry", 1, f"{seq:09d}", {}, seq, {}, 1, 2))
            uow.commit()
            sys.stdout.write(f"{seq}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
