"""The page: introduction, findings, then the sections with their plots."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from calibration.text import Section, number, plural

_IMAGE = re.compile(r"!\[[^\]]*\]\(img/engine/([a-z_]+\.png)\)\n*")

OPENING = """\
# The engine on real bars

How the states, scores, flags and gates of the engine behave on recorded market bars, whether its constants fit them,
and what the main switches of the system are worth. `python tools/engine_on_real_bars.py` measures everything anew and
writes this page with its plots: no figure here was typed by hand, and the sentences that interpret figures are built
from them.

- Bars are pooled over a set's symbols and follow each other closely: counts are not independent observations.
- The sets were chosen by the repositories they come from: coins that drew attention, and that survived or died in
  public.
- Gates are the base gates. Nothing learned plays a part in any section but the policies.
"""
QUICK = "**A quick run: the first symbols of each set only, and no backtests. Not for conclusions.**\n"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of a run: the engine with everything measured on it, the backtests, all together, and processor time."""

    engine: float
    backtests: float
    total: float
    processor: float


def attempt_section() -> Section:
    """One stretch of real bars, as the engine saw it."""
    text = (
        "The first set's attempt with most kinds of flags, of those 250 to 900 bars long: shaded by state (colours as "
        "above), with EMAs, entries and emergency exits; below, the scores where they are due.\n\n"
        "![One attempt on real bars](img/engine/stretch.png)"
    )
    return Section("One attempt, bar by bar", text)


def page(sections: Sequence[Section], drawn: Collection[str], timing: Timing, bars: int, *, quick: bool) -> str:
    """The whole page as Markdown; images that were not drawn are left out."""
    findings = [f"- {sentence}" for section in sections for sentence in section.findings]
    parts = [
        OPENING,
        _took(timing, bars),
        *([QUICK] if quick else []),
        "## What was found\n",
        "\n".join(findings) + "\n",
    ]
    for index, section in enumerate(sections, start=1):
        parts.append(f"## {index}. {section.title}\n\n{section.body}\n")
    text = "\n".join(parts)
    return _IMAGE.sub(lambda match: match[0] if match[1] in drawn else "", text).rstrip() + "\n"


def _took(timing: Timing, bars: int) -> str:
    told = (
        f"This run took {_minutes(timing.total)}: {_minutes(timing.engine)} for the engine over {plural(bars, 'bar')}"
    )
    walked = f", {_minutes(timing.backtests)} for the backtests" if timing.backtests else ""
    return f"{told}{walked}; the rest drew and wrote. Processor time: {_minutes(timing.processor)}.\n"


def _minutes(seconds: float) -> str:
    return f"{number(seconds / 60, 1)} minutes" if seconds >= 60 else f"{number(seconds, 0)} s"
