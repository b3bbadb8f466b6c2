"""What people see: words of users are printed as they are, in tables, trees and lines."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgebook.cli.show import (
    console,
    show_explained,
    show_kill_switch,
    show_lessons,
    show_pairs,
    show_trace,
    table,
)

ODD = ["[/bold] x", "[low]", "[red]a[/red]", ":bell:", "[/]", "[link=y]z"]


@given(st.text("[]/:=abold \\\\", min_size=1, max_size=12).filter(str.strip))
def test_a_cell_is_printed_as_it_is_on_any_console(words):
    """Title, head and cell, whatever a console makes of markup."""
    out = io.StringIO()
    Console(file=out, width=200).print(table(f"t{words}t", [f"h{words}h"], [[f"c{words}c"]]))

    assert [line.strip() for line in out.getvalue().splitlines()] == [f"t{words}t", f"h{words}h", f"c{words}c"]


def test_a_title_is_slanted_and_a_head_is_bold():
    """As before, though they are no markup."""
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=True, color_system="standard").print(table("t", ["h"], [["c"]]))

    title, head, cell = out.getvalue().splitlines()
    assert "\x1b[3mt" in title
    assert "\x1b[1mh" in head
    assert "\x1b" not in cell


def lesson(words):
    """A lesson whose every text is ``words``."""
    scope = {"dim": words}
    return {
        "id": words, "type": words, "lesson_type": words, "status": words, "pattern_key": f"pattern_key={words}",
        "action_category": words, "scope": scope, "levers": {"size_mult": 1.1}, "stats": {"n": 3}, "reason": words,
        "evidence_at": words, "statistics": {"note": words}, "evidence": words, "evidence_ids": [words],
    }  # fmt: skip


@pytest.mark.parametrize("words", ODD)
def test_lessons_and_trees_print_odd_words(capsys, words):
    """A scope value that looks like markup is there in full."""
    show_lessons([lesson(words)])
    assert f"dim={words}" in capsys.readouterr().out

    show_explained({"lesson": lesson(words)})
    assert f"where dim={words}: {words} ({words})" in capsys.readouterr().out


@pytest.mark.parametrize("words", ODD)
def test_lines_print_odd_words(capsys, words):
    """Symbols, reasons, scopes, errors."""
    console().print(f"<{words}>")
    show_pairs({"error": words})
    stop = {"reason": words, "scope": words, "since": "now", "until": ""}
    show_kill_switch({"kill_switch": "on", "channel": "", "changed": True, "in_force": [stop]})
    strand = {"seq": 1, "ts": "now", "kind": "k", "symbol": words, "timeframe": "1h", "text": f"<{words}"}
    show_trace({"signal": words, "strands": [strand], "verdict": "died", "stage": "s", "at": "a", "why": words})

    out = capsys.readouterr().out
    assert f"<{words}>" in out
    assert f"error  {words}" in out
    assert f"in force: {words} for {words} since now, until lifted" in out
    assert f"<{words}\n" in out.replace(" \n", "\n").replace("  ", "")
    assert f"packet {words} died at stage a: {words}" in out
