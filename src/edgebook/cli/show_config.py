"""How config versions are printed for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgebook.cli.show import console, levers_text, scope_text, short, table

Json = Any
_DONE = {
    "mute": "does not act any more",
    "unmute": "acts again, at most one step an hour",
    "pin": "is pinned as it stands",
    "unpin": "follows learning again",
}


def show_history(rows: Sequence[Mapping[str, Json]]) -> None:
    """Config versions, the newest first."""
    columns = ("version", "in force from", "who", "act", "overrides", "muted", "pinned", "+", "-", "changed", "why")
    body = [
        (
            row["version"],
            row["at"],
            row["who"] or "-",
            f"{row['act']} {row['target'][:8]}".strip() or "-",
            sum(row["overrides"].values()),
            row["muted"],
            row["pinned"],
            len(row["added"]),
            len(row["removed"]),
            len(row["changed"]),
            row["why"] or "-",
        )
        for row in rows
    ]
    console().print(table(f"{len(rows)} config versions", columns, body))


def show_diff(found: Mapping[str, Json]) -> None:
    """What the second of two versions added, removed and changed."""
    body = [
        (
            mark,
            row["lesson_type"],
            short(row["pattern_key"]),
            row["action_category"],
            scope_text(row["scope"]),
            _targets(row["before"], row["state_before"]),
            _targets(row["after"], row["state_after"]),
            ", ".join(row["what"]) or "-",
            row["lesson_id"][:8],
        )
        for mark, name in (("+", "added"), ("-", "removed"), ("~", "changed"))
        for row in found[name]
    ]
    counts = ", ".join(f"{len(found[name])} {name}" for name in ("added", "removed", "changed"))
    title = f"config version {found['from']} to {found['to']}: {counts}, {found['unchanged']} the same"
    columns = ("", "type", "pattern", "category", "scope", "before", "after", "differs in", "lesson")
    console().print(table(title, columns, body))


def _targets(levers: Mapping[str, float] | None, state: str) -> str:
    return "-" if levers is None else f"{levers_text(levers)} ({state})"


def steered_text(found: Mapping[str, Json]) -> str:
    """What an act did, on one line.

    >>> steered_text({"act": "mute", "target": "l1", "changed": False, "config_version": 4})
    'lesson l1 does not act any more (it was so already); config version 4 is in force'
    >>> steered_text({"act": "revert", "target": "2", "changed": True, "config_version": 5})
    'the overrides are those of config version 2; config version 5 is in force'
    """
    act, target = found["act"], found["target"]
    said = f"the overrides are those of config version {target}" if act == "revert" else f"lesson {target} {_DONE[act]}"
    already = "" if found["changed"] else " (it was so already)"
    return f"{said}{already}; config version {found['config_version']} is in force"
