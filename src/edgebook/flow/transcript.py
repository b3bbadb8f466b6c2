"""What a campaign leaves: transcripts in Markdown and JSON, one checklist per scenario, the table of what moved."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgebook.domain.errors import InputError
from edgebook.flow.campaign import Outcome


def make_folder(folder: Path) -> None:
    """Make the folder of a campaign before it begins, rather than find out after the last scenario that it cannot be.

    Raises:
        InputError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            """Something can be written there."""
    except OSError as error:
        raise InputError(f"--out was {folder}: cannot be written: {error.strerror}") from error


def write(outcomes: Sequence[Outcome], folder: Path, head: str = "") -> list[Path]:
    """Write all files of a campaign; gives their paths. ``head`` says when it was run, and with what.

    Raises:
        InputError: the folder cannot be made or written.
    """
    texts = {
        "flow.json": json.dumps([_plain(one) for one in outcomes], separators=(",", ":")) + "\n",
        "README.md": summary(outcomes, head),
    }
    for one in outcomes:
        texts[f"{one.scenario}.{one.db}.md"] = transcript(one)
    for name in dict.fromkeys(one.scenario for one in outcomes):
        texts[f"{name}.checklist.md"] = checklist([one for one in outcomes if one.scenario == name])
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = folder / name
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise InputError(f"--out was {folder}: cannot be written: {error.strerror}") from error
    return written


def summary(outcomes: Sequence[Outcome], head: str = "") -> str:
    """The table of scenarios, and of everything that was seen to move."""
    arrived = sum(one.verdict == "arrived" for one in outcomes)
    lines = ["# Flow", "", f"{head}{arrived} of {len(outcomes)} arrived.", ""]
    lines += [
        "| scenario | what | database | packets | last stage | verdict | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        verdict = "arrived" if one.verdict == "arrived" else f"**died at {one.died_at}**"
        lines.append(
            f"| [{one.scenario}]({one.scenario}.{one.db}.md) | {_cell(one.title)} | {one.db} | {len(one.packets)} |"
            f" {one.last_stage} | {verdict} | {one.wall_s:.1f} |"
        )
    moved = [(one, move) for one in outcomes for move in one.moved]
    if moved:
        lines += ["", "## What learning moved", "", *moved_head(with_scenario=True)]
        lines += [_moved_row(move, f"{one.scenario} {one.db}") for one, move in moved]
    return "\n".join(lines) + "\n"


def transcript(one: Outcome) -> str:
    """Everything one scenario asked, with the queries as they can be repeated."""
    lines = [f"# {one.scenario}: {one.title}", "", f"Database {one.db}; {one.wall_s:.1f} s; virtual time {one.clocks}."]
    lines += ["", f"Verdict: **{one.verdict}**" + (f" at {one.died_at}" if one.died_at else "") + "."]
    if one.why:
        lines += ["", "```", one.why, "```"]
    lines += ["", f"Packets: {', '.join(f'`{name}`' for name in _few(one.packets)) or 'none'}.", ""]
    lines += [f"    {command}" for command in one.commands]
    lines += ["", "| | stage | packet | expected | found |", "|---|---|---|---|---|"]
    for number, finding in enumerate(one.findings, start=1):
        mark = "ok" if finding.passed else "DIED"
        cells = (finding.stage, finding.packet, finding.expected, finding.told)
        lines.append(f"| {number} {mark} | " + " | ".join(map(_cell, cells)) + " |")
    lines += ["", "## Queries", ""]
    lines += [f"{number}. `{finding.query}`" for number, finding in enumerate(one.findings, start=1)]
    if one.jobs:
        lines += ["", "## Jobs at the end", "", "| job | runs | failed |", "|---|---|---|"]
        lines += [f"| {name} | {runs} | {failed} |" for name, runs, failed in one.jobs]
    if one.moved:
        lines += ["", "## What learning moved", "", *moved_head()]
        lines += [_moved_row(move) for move in one.moved]
    return "\n".join(lines) + "\n"


def checklist(outcomes: Sequence[Outcome]) -> str:
    """The stages of one scenario as a list that can be gone through again."""
    first = outcomes[0]
    lines = [f"# {first.scenario}: {first.title}", "", f"Again: `edgebook flow {first.scenario} --out DIR`", ""]
    longest = max(outcomes, key=lambda one: len(one.findings))
    passed = [sum(f.passed for f in one.findings) for one in outcomes]
    for number, finding in enumerate(longest.findings):
        done = all(count > number for count in passed)
        about = f" ({finding.packet})" if finding.packet else ""
        lines.append(f"- [{'x' if done else ' '}] **{finding.stage}**{about}: {finding.expected}")
    lines += ["", *(f"{one.db}: {one.verdict}{' at ' + one.died_at if one.died_at else ''}" for one in outcomes)]
    return "\n".join(lines) + "\n"


def moved_head(*, with_scenario: bool = False) -> list[str]:
    """Head of the table of moves."""
    first = "| scenario " if with_scenario else ""
    rule = "|---" if with_scenario else ""
    return [
        first + "| what | action before | before | action after | after | why |",
        rule + "|---|---|---|---|---|---|",
    ]


def _moved_row(move: Any, scenario: str = "") -> str:
    cells = [scenario] if scenario else []
    cells += [move.what, f"`{move.before_id}`", f"{move.before:.6g}", f"`{move.after_id}`", f"{move.after:.6g}"]
    return "| " + " | ".join([*cells, _cell(move.why)]) + " |"


def _few(names: Sequence[str], most: int = 12) -> list[str]:
    return [*names[:most], f"and {len(names) - most} more"] if len(names) > most else list(names)


def _cell(text: str) -> str:
    short = text if len(text) <= 300 else text[:297] + "..."
    return short.replace("|", "\\|").replace("\n", " ")


def _plain(one: Outcome) -> dict[str, Any]:
    found = asdict(one)
    found["wall_s"] = round(one.wall_s, 2)
    for finding in found["findings"]:
        finding["found"] = [[_json(value) for value in row] for row in finding["found"]]
    return found


def _json(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
