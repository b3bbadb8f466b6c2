"""Units of evidence drawn at random: two families of each module, scopes with gaps, several trades to a cluster."""

from __future__ import annotations

import random

from edgebook.domain.evidence import Observation
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY

DAY = 86_400_000_000
START = 20_000
_VALUES = {
    "pm": {
        "macro_phase": ["Good", "Dip", "Euphoria"],
        "bucket_rank_position": [1, 2, 3],
        "bucket": ["mid ±", "micro", "it's"],
        "timeframe": ["1h", "4h"],
        "A_mode": ["normal", "patient"],
    },
    "dm": {"curator": [f"c{i}" for i in range(9)], "chain": ["solana", "base"], "bucket_rank_position": [1, 2]},
}


def random_units(count: int, seed: int = 1) -> list[Observation]:
    """``count`` observations that closed within 40 days."""
    rng = random.Random(seed)
    units = []
    for i in range(count):
        module = "pm" if rng.random() < 0.8 else "dm"
        category = rng.choice(["entry", "trim"]) if module == "pm" else "allocation"
        opened = START * DAY + rng.randrange(38 * DAY)
        values = {dim: rng.choice(found) for dim, found in _VALUES[module].items() if rng.random() < 0.85}
        units.append(
            Observation(
                module=module,
                pattern_key=(S1_ENTRY if module == "pm" else DM_ALLOCATION).key,
                action_category=category,
                unit_id=f"unit-{i}",
                ts=opened + rng.randrange(2 * DAY),
                opened_at=opened,
                y=max(-3.0, min(10.0, rng.gauss(0.1, 1.5))),
                roi=rng.gauss(0, 0.1),
                pnl_usd=rng.gauss(0, 100),
                weight=1.0 if module == "pm" else rng.random(),
                token=rng.choice(["AAA", "BBB", "CCC"]),
                day=opened // DAY,
                scope=values,
                hold_days=rng.random() * 9,
                time_efficiency=rng.random(),
                n_actions=rng.randrange(1, 5),
                holdout=rng.random() < 0.1,
                exit_y=rng.gauss(0, 1) if category == "trim" and rng.random() < 0.5 else None,
                parts={"trade": (0.5, 1.25)} if module == "dm" else {},
            )
        )
    return units
