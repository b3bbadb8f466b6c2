"""Override lookup and blend at 100, 1,000 and 10,000 overrides, against a scan of dicts and a hash per dimension mask.

Works per size: ``lookup`` (find every override whose scope is a subset of the current one), ``lookup+blend`` (the same,
then the log-space blend with decay), and ours as the trading loop calls it, which also slews and explains each match:
cold, when a scope is seen for the first time in an hour, and warm. Peers are written plainly and results are asserted
equal before anything is timed.

Run: ``python bench/overrides.py [--json]``; prints one object per work, microseconds per call, best of several rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.pattern import Pattern
from edgebook.domain.scope import PM_SCHEMA, ScopeItems, make_scope
from edgebook.overrides import ConfigHistory, Override, apply_pattern_strength_overrides, dump_documents
from edgebook.overrides.combine import blended
from edgebook.overrides.match import MatchIndex, group
from edgebook.overrides.record import Family

_PHASES = ("Dip", "Double-Dip", "Oh-Shit", "Recover", "Good", "Euphoria")
_VALUES: dict[str, tuple[Any, ...]] = {
    "macro_phase": _PHASES,
    "meso_phase": _PHASES,
    "micro_phase": _PHASES,
    "bucket_leader": ("nano", "micro", "small", "mid", "large", "mega"),
    "bucket_rank_position": (1, 2, 3, 4, 5, 6),
    "market_family": ("lowcaps",),
    "bucket": ("nano", "micro", "small", "mid", "large", "mega"),
    "timeframe": ("1m", "15m", "1h", "4h"),
    "A_mode": ("patient", "normal", "aggressive"),
    "E_mode": ("patient", "normal", "aggressive"),
}
_NOW = 500_000 * HOUR
_PATTERNS = tuple(Pattern(f"module=pm|pattern_key=uptrend.S{i}.buy_flag", "entry") for i in range(12))


def _population(size: int, rng: random.Random) -> list[Override]:
    found = []
    for number in range(size):
        dims = rng.sample(PM_SCHEMA.dims, rng.choice((1, 2, 2, 3, 3, 3)))
        scope = make_scope(PM_SCHEMA, {dim: rng.choice(_VALUES[dim]) for dim in dims})
        targets = {"size_mult": math.exp(rng.gauss(0, 0.05))}
        evidence = _NOW - rng.randrange(2000) * HOUR
        key = rng.choice(_PATTERNS).key
        found.append(Override(f"lesson-{number:05d}", "pm_strength", key, "entry", scope, targets, 720.0, evidence))
    return found


def _questions(rng: random.Random, count: int) -> list[tuple[Pattern, ScopeItems]]:
    found = []
    for _ in range(count):
        values = {dim: rng.choice(choices) for dim, choices in _VALUES.items()}
        found.append((rng.choice(_PATTERNS), make_scope(PM_SCHEMA, values)))
    return found


class _DictScan:
    """Every override is looked at; scopes are dicts."""

    def __init__(self, overrides: Sequence[Override]) -> None:
        self.rows = [(o.pattern_key, o.action_category, dict(o.scope), o) for o in overrides]

    def __call__(self, pattern: Pattern, scope: ScopeItems) -> list[Override]:
        current = dict(scope)
        return [
            o
            for key, category, rule, o in self.rows
            if key == pattern.key and category == pattern.category and all(current.get(d) == v for d, v in rule.items())
        ]


class _MaskHash:
    """One hash table per set of dims that any override uses."""

    def __init__(self, overrides: Sequence[Override]) -> None:
        self.masks: dict[tuple[str, str], dict[tuple[str, ...], dict[tuple[Any, ...], list[Override]]]] = defaultdict(
            dict
        )
        for o in overrides:
            tables = self.masks[(o.pattern_key, o.action_category)]
            table = tables.setdefault(tuple(d for d, _ in o.scope), {})
            table.setdefault(tuple(v for _, v in o.scope), []).append(o)

    def __call__(self, pattern: Pattern, scope: ScopeItems) -> list[Override]:
        current = dict(scope)
        found: list[Override] = []
        for dims, table in self.masks[(pattern.key, pattern.category)].items():
            found.extend(table.get(tuple(current.get(d) for d in dims), ()))
        return found


def _blended(matches: Sequence[Override]) -> float:
    total = math.fsum(
        2.0 ** (-((_NOW - o.evidence_at) / HOUR) / o.half_life_hours) * math.log(o.targets["size_mult"])
        for o in matches
    )
    return min(max(math.exp(total), 0.5), 1.5)


def _best(
    call: Callable[[Pattern, ScopeItems], object], questions: Sequence[tuple[Pattern, ScopeItems]], rounds: int
) -> float:
    """Microseconds per call: the best of ``rounds``."""
    best = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        for pattern, scope in questions:
            call(pattern, scope)
        best = min(best, time.perf_counter() - start)
    return best / len(questions) * 1e6


def _measure(size: int, rounds: int) -> list[dict[str, Any]]:
    rng = random.Random(size)
    overrides, questions = _population(size, rng), _questions(rng, 200)
    scan, hashed = _DictScan(overrides), _MaskHash(overrides)
    indices = {family[1]: MatchIndex(members) for family, members in group(overrides).items()}
    dm, pm = dump_documents(overrides)
    history = ConfigHistory.from_versions([ConfigVersion(1, _NOW - 100 * HOUR, dm, pm, "")])

    def lookup(pattern: Pattern, scope: ScopeItems) -> list[Override]:
        index = indices.get(pattern.key)
        return index.matches(scope) if index is not None else []

    def blend(pattern: Pattern, scope: ScopeItems) -> float:
        version = history.families.get(Family("pm_strength", pattern.key, pattern.category))
        return math.exp(blended(version, scope, _NOW // HOUR)[0]) if version is not None else 1.0

    def blend_cold(pattern: Pattern, scope: ScopeItems) -> float:
        for version in history.families.values():
            version.matched.clear()
        return blend(pattern, scope)

    def cold(pattern: Pattern, scope: ScopeItems) -> float:
        history.memo.clear()
        for version in history.families.values():
            version.matched.clear()
        return apply_pattern_strength_overrides(history, pattern, scope, _NOW).size_mult

    def warm(pattern: Pattern, scope: ScopeItems) -> float:
        return apply_pattern_strength_overrides(history, pattern, scope, _NOW).size_mult

    order = attrgetter("lesson_id")
    for pattern, scope in questions:
        expected = sorted(scan(pattern, scope), key=order)
        if not (sorted(lookup(pattern, scope), key=order) == sorted(hashed(pattern, scope), key=order) == expected):
            raise SystemExit(f"lookups disagree at {pattern} {scope}")
        answers = (blend_cold(pattern, scope), cold(pattern, scope), warm(pattern, scope))
        if max(abs(answer - _blended(expected)) for answer in answers) > 1e-12:
            raise SystemExit(f"blends disagree at {pattern} {scope}")
    peers: dict[str, Callable[[Pattern, ScopeItems], list[Override]]] = {"dict scan": scan, "hash per mask": hashed}
    scores = []
    for work, ours, wrap in (
        (f"lookup, {size} overrides", lookup, lambda call: call),
        (f"lookup+blend, {size} overrides", blend_cold, lambda call: lambda p, s: _blended(call(p, s))),
        (f"lookup+blend+because, cold, {size} overrides", cold, lambda call: lambda p, s: _blended(call(p, s))),
        (f"lookup+blend+because, warm, {size} overrides", warm, lambda call: lambda p, s: _blended(call(p, s))),
    ):
        mine = _best(ours, questions, rounds)
        theirs = {name: _best(wrap(call), questions, rounds) for name, call in peers.items()}
        scores.append(
            {
                "name": "overrides",
                "work": work,
                "unit": "us/call",
                "ours": round(mine, 3),
                "peer": {name: round(figure, 3) for name, figure in theirs.items()},
                "times_better": {name: round(figure / mine, 2) for name, figure in theirs.items()},
            }
        )
    return scores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per figure, the best counts (default 5)")
    options = parser.parse_args()
    for size in (100, 1_000, 10_000):
        for score in _measure(size, options.rounds):
            if options.json:
                print(json.dumps(score))
            else:
                better = ", ".join(f"{x:g}x {name}" for name, x in score["times_better"].items())
                print(f"{score['work']:48s} {score['ours']:9.2f} {score['unit']}   {better}")


if __name__ == "__main__":
    main()
