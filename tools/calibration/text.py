"""Markdown pieces: tables, numbers, folds. A section is its text and the sentences it adds to the findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page: its heading, its Markdown, and what it found, one sentence each."""

    title: str
    body: str
    findings: tuple[str, ...] = ()


def table(head: Row, rows: Iterable[Row], left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are aligned left, the others right."""
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def fold(title: str, body: str) -> str:
    """A part that is closed until somebody opens it."""
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def count(value: float) -> str:
    """A whole number with thousands separated."""
    return f"{round(value):,}"


def number(value: float, digits: int = 2) -> str:
    """A number with a fixed number of digits; nothing for NaN; no minus before a zero."""
    if value != value:
        return ""
    shown = f"{value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0.0 else shown


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage without its sign; nothing for NaN."""
    return number(100.0 * value, digits)


def span(values: Iterable[float], digits: int = 2) -> str:
    """``low to high`` of some numbers, one number when they print alike, ``none`` when there are none."""
    known = sorted(value for value in values if value == value)
    if not known:
        return "none"
    low, high = number(known[0], digits), number(known[-1], digits)
    return low if low == high else f"{low} to {high}"


def listed(names: Iterable[str]) -> str:
    """Names as a list in a sentence."""
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + (" and " if names else "none") + "".join(names[-1:])


def plural(number_of: int, word: str, words: str = "") -> str:
    """``1 set``, ``2 sets``."""
    return f"{number_of:,} {word if number_of == 1 else words or word + 's'}"
