"""Settings against each other on recorded bars: the whole system once per arm, differences with week-block intervals.

    python -m tools.compare_on_real_bars default dm_coefficients=off appetite_model=flags,learning_enabled=false

An arm is ``setting=value[,setting=value...]``, ``default`` for none; the others are compared with the first.
rr is weighted by what was invested. Arms that size differently do not spend the same: then money is not comparable.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tools.tuning_on_real_bars import DATA, SETS, Walk, walk

from edgebook.runtime.uplift import uplift


def setting(text: str) -> dict[str, str]:
    """Settings of an arm.

    >>> setting("default"), setting("dm_coefficients=off,first_dip=false")
    ({}, {'dm_coefficients': 'off', 'first_dip': 'false'})
    """
    if text == "default":
        return {}
    pairs = [part.partition("=") for part in text.split(",")]
    wrong = next((part for part in pairs if not (part[0] and part[1])), None)
    if wrong:
        raise ValueError(f"arm {text!r}: {''.join(wrong)!r} is not setting=value")
    return {name: value for name, _, value in pairs}


def line(name: str, one: Walk, base: Walk | None) -> str:
    """One row of the table."""
    invested = sum(float(t.invested_usd) for t in one.trades)
    told = [name, f"{len(one.trades):,}", f"{one.found['trades']['avg_rr']:+.4f}",
            f"{one.found['trades']['pnl_usd']:+,.0f}", f"{invested:,.0f}"]  # fmt: skip
    if base is None:
        return "| " + " | ".join([*told, "-", "-"]) + " |"
    gain = uplift(one.trades, base.trades)
    low, high = gain["ci90"]
    told.append(f"{gain['rr_per_trade']:+.4f} [{low:+.4f}, {high:+.4f}]")
    low, high = gain["pnl_ci90"]
    return "| " + " | ".join([*told, f"{gain['pnl']:+,.0f} [{low:+,.0f}, {high:+,.0f}]"]) + " |"


def table(name: str, arms: Sequence[str]) -> str:
    """All arms on one set of bars."""
    head = "| arm | trades | rr | pnl USD | invested USD | rr against the first [90 %] | pnl against the first [90 %] |"
    lines = [f"## {name}", "", head, "| --- | ---: | ---: | ---: | ---: | --- | --- |"]
    base: Walk | None = None
    for arm in arms:
        one = walk(*SETS[name], dict(setting(arm)))
        lines.append(line(arm, one, base))
        base = base or one
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="+", metavar="ARM")
    parser.add_argument("--set", choices=list(SETS), action="append")
    given = parser.parse_args()
    if not DATA.exists():
        sys.exit("the recorded bars are not here: nothing to measure")
    for name in given.set or SETS:
        print(table(name, given.arms), flush=True)


if __name__ == "__main__":
    main()
