"""What several scenarios ask of learning: the lesson about a gate, its override, and what the gate did afterwards."""

from __future__ import annotations

from typing import NamedTuple

from edgebook.domain.levers import LEVERS
from edgebook.flow.check import Flow, every, that


class Gate(NamedTuple):
    """Where a gate is learnt: pattern key, category, state and type of its episodes."""

    key: str
    category: str
    state: str
    episode: str


_S1 = Gate("module=pm|pattern_key=uptrend.S1.buy_flag", "entry", "S1", "s1_entry")
_S3 = Gate("module=pm|pattern_key=uptrend.S3.dx", "add", "S3", "s3_retest")
GATES = {
    **dict.fromkeys(("ts_min", "halo", "slope_min"), _S1),
    **dict.fromkeys(("dx_min", "slow_slope_min", "edx_supp_mult"), _S3),
}

LOOSER, TIGHTER = -1, 1


def within(*, channel: str = "tuning", mode: str = "", after: int = 0) -> str:
    """The part of a WHERE that keeps strands ``s`` which are no holdout of a channel, under an A mode, after a seq.

    >>> within(mode="patient")
    "s.arm NOT LIKE '%tuning%' AND $text(s.scope, A_mode) = 'patient'"
    """
    parts = [f"s.arm NOT LIKE '%{channel}%'"]
    parts += [f"$text(s.scope, A_mode) = '{mode}'"] if mode else []
    parts += [f"s.seq > {after}"] if after else []
    return " AND ".join(parts)


def seq_now(flow: Flow) -> int:
    """The newest seq of the log."""
    return int(flow.ask("SELECT max(seq) FROM ad_strands")[0][0])


def learnt_gate(flow: Flow, lever: str, way: int, mode: str = "") -> str:
    """The lessons that move a gate ``LOOSER`` or ``TIGHTER``, everywhere or under an A mode, and their overrides; their
    ids, joined by commas."""
    gate, base, sign = GATES[lever], LEVERS[lever].base, way * LEVERS[lever].polarity
    side = "above" if sign > 0 else "below"
    moved = f"$num(effect, execution_levers.signal_thresholds.{lever})"
    found = flow.check(
        "lesson builder",
        f"SELECT key, {moved}, scope_values FROM learning_lessons WHERE lesson_type = 'pm_tuning'"
        " AND status = 'active' AND pattern_key = :key AND action_category = :category"
        " AND (scope_values = '{}' OR $text(scope_values, A_mode) = :mode)"
        f" AND {moved} {'>' if sign > 0 else '<'} :base ORDER BY key",
        that(f"an active lesson, {lever} {side} {base:g}", lambda f: len(f) >= 1),
        key=gate.key,
        category=gate.category,
        mode=mode,
        base=base,
    )
    lessons = [str(row[0]) for row in found]
    flow.check(
        "materializer",
        f"SELECT $text(o.value, lesson.id), $num(o.value, levers.signal_thresholds.{lever}),"
        " c.updated_at - v.in_force_from FROM learning_configs c"
        " JOIN learning_config_versions v ON v.version = c.config_version, $each(c.config_data, pattern_overrides, o)"
        " WHERE c.module_id = 'pm' AND :lessons LIKE '%' || $text(o.value, lesson.id) || '%' ORDER BY 1",
        that(
            f"{len(lessons)} in the newest version, {lever} {side} {base:g}",
            lambda f: [row[0] for row in f] == lessons and all((row[1] - base) * sign > 0 and row[2] == 0 for row in f),
        ),
        lessons=",".join(lessons),
    )
    return ",".join(lessons)


def gate_acts(flow: Flow, lever: str, way: int, lessons: str, *, mode: str = "", after: int = 0) -> None:
    """What the learned gate did to flags and actions, under an A mode, after a seq: thresholds of windows, flags of
    their bars, and actions."""
    gate, base, sign = GATES[lever], LEVERS[lever].base, way * LEVERS[lever].polarity
    side = "above" if sign > 0 else "below"
    of = within(mode=mode, after=after)
    flow.check(
        "gate resolution",
        f"SELECT $num(s.content, thresholds_effective.{lever}) FROM ad_strands s WHERE s.kind = 'uptrend_buy_window'"
        f" AND $text(s.content, episode_type) = :episode AND {of} ORDER BY s.seq DESC LIMIT 3",
        every(f"with {lever} {side} {base:g}", lambda value: (value - base) * sign > 1e-9, 3),
        episode=gate.episode,
    )
    on, off = ("flag_on", "flag_base") if way == LOOSER else ("flag_base", "flag_on")
    flow.check(
        "engine",
        "SELECT count(*) FROM ad_strands s, $each(s.content, samples, x) WHERE s.kind = 'uptrend_buy_window'"
        f" AND $text(s.content, episode_type) = :episode AND $flag(x.value, {on}) AND NOT $flag(x.value, {off})"
        f" AND {of}",
        that(f"at least 3 bars with {on} and without {off}", lambda found: found[0][0] >= 3),
        episode=gate.episode,
    )
    (_let_in if way == LOOSER else _shut_out)(flow, lever, lessons, of)


def _let_in(flow: Flow, lever: str, lessons: str, of: str) -> None:
    gate, row = GATES[lever], LEVERS[lever]
    flow.check(
        "PM",
        "SELECT DISTINCT s.seq, $num(n.value, base), $num(n.value, applied), s.config_version FROM ad_strands s,"
        " $each(s.content, nudges, n), $each(n.value, matched, m) WHERE s.kind = 'pm_action'"
        f" AND $text(s.content, state) = '{gate.state}' AND $text(s.content, side) = 'buy'"
        f" AND NOT $flag(s.content, reasons.flag_base) AND $text(n.value, lever) = '{lever}'"
        f" AND :lessons LIKE '%' || $text(m.value, lesson_id) || '%' AND {of} ORDER BY s.seq DESC LIMIT 12",
        every(
            "bought below the base gate, by these lessons",
            lambda _, base, applied, version: base == row.base and (base - applied) * row.polarity > 0 and version > 0,
            3,
        ),
        lessons=lessons,
    )


def _shut_out(flow: Flow, lever: str, lessons: str, of: str) -> None:
    gate, row = GATES[lever], LEVERS[lever]
    flow.check(
        "PM",
        "SELECT $flag(s.content, entered), (SELECT count(*) FROM ad_strands a WHERE a.kind = 'pm_action'"
        " AND $text(a.content, window_id) = $text(s.content, window_id)) FROM ad_strands s"
        " WHERE s.kind = 'uptrend_buy_window' AND $text(s.content, episode_type) = :episode"
        f" AND $flag(s.content, samples.0.flag_base) AND NOT $flag(s.content, samples.0.flag_on) AND {of}"
        " ORDER BY s.seq DESC LIMIT 12",
        every("not entered and without an action", lambda entered, actions: not entered and actions == 0, 3),
        episode=gate.episode,
    )
    flow.check(
        "PM",
        "SELECT DISTINCT s.seq, $num(n.value, base), $num(n.value, applied) FROM ad_strands s,"
        " $each(s.content, nudges, n), $each(n.value, matched, m) WHERE s.kind = 'pm_action'"
        f" AND $text(s.content, state) = '{gate.state}' AND $text(s.content, side) = 'buy'"
        f" AND $text(n.value, lever) = '{lever}' AND :lessons LIKE '%' || $text(m.value, lesson_id) || '%' AND {of}"
        " ORDER BY s.seq DESC LIMIT 12",
        every(
            "bought inside the tighter gate, by these lessons",
            lambda _, base, applied: (applied - base) * row.polarity > 0,
        ),
        lessons=lessons,
    )


def saw_gate(flow: Flow, lever: str, *, mode: str = "", after: int = 0) -> None:
    """Keep the first and the last buy's threshold of a gate as evidence."""
    gate, of = GATES[lever], within(mode=mode, after=after)
    first, *_, last = flow.ask(
        f"SELECT s.id, $num(s.content, thresholds_effective.{lever}) FROM ad_strands s WHERE s.kind = 'pm_action'"
        f" AND $text(s.content, state) = '{gate.state}' AND $text(s.content, side) = 'buy' AND {of}"
        " ORDER BY s.seq"
    )
    _keep(flow, f"{lever}{_under(mode)}", first, last)


def _keep(flow: Flow, what: str, first: tuple[object, ...], last: tuple[object, ...]) -> None:
    why = flow.ask(
        "SELECT $text(m.value, lesson_id) FROM ad_strands s, $each(s.content, nudges, n), $each(n.value, matched, m)"
        " WHERE s.id = :id AND $text(n.value, lever) = :lever ORDER BY 1",
        id=last[0],
        lever=what.split()[0],
    )
    flow.saw(what, first, last, "lessons " + ", ".join(str(lesson) for (lesson,) in why))


def _under(mode: str) -> str:
    return f" where A is {mode}" if mode else ""


def allocation_acts(flow: Flow, curator: str, mcap: str, sign: int) -> None:
    """What channel 1 does to decisions on a curator's calls of tokens of a size: larger (1) or smaller (-1)."""
    of = (
        "s.kind = 'decision_lowcap' AND $text(s.content, action) = 'approve' AND $text(s.scope, curator) = :curator"
        f" AND $text(s.scope, mcap_bucket) = :mcap AND {within(channel='dm')}"
    )
    side, asked = ("above", "below")[sign < 0], {"curator": curator, "mcap": mcap}
    flow.check(
        "runtime (dm)",
        f"SELECT s.id, $num(s.content, alloc_mult) FROM ad_strands s WHERE {of} ORDER BY s.seq DESC LIMIT 3",
        every(f"with alloc_mult {side} 1", lambda _, found: (found - 1.0) * sign > 0, 3),
        **asked,
    )
    flow.check(
        "runtime (dm)",
        "SELECT $num(s.content, allocation_pct), $num(s.content, base_allocation_pct)"
        " * $num(s.content, coefficient_mult) * $num(s.content, static_mult) * $num(s.content, alloc_mult)"
        f" FROM ad_strands s WHERE {of} ORDER BY s.seq DESC LIMIT 3",
        every(
            "allocating base * coefficients * alloc_mult, at most 20 %", lambda a, b: abs(a - min(20.0, b)) < 1e-6, 3
        ),
        **asked,
    )
    flow.check(
        "runtime (dm)",
        "SELECT s.seq, count(DISTINCT l.key) FROM ad_strands s, $each(s.content, nudges, n),"
        " $each(n.value, matched, m), learning_lessons l WHERE l.key = $text(m.value, lesson_id)"
        f" AND l.lesson_type = 'dm_alloc' AND l.module = 'dm' AND {of} GROUP BY s.seq ORDER BY s.seq DESC LIMIT 3",
        every("naming lessons of dm_alloc alone", lambda _, lessons: lessons > 0, 3),
        **asked,
    )
    first, *_, last = flow.ask(
        f"SELECT s.id, $num(s.content, alloc_mult) FROM ad_strands s WHERE {of} ORDER BY s.seq", **asked
    )
    _keep(flow, f"alloc_mult of {curator}, {mcap}", first, last)


def size_acts(flow: Flow, bucket: str, sign: int, *, mode: str = "", timeframe: str = "") -> None:
    """What channel 2 does to entries in S1 of a cap class, under an A mode: larger (1) or smaller (-1)."""
    entries = (
        "s.kind = 'pm_action' AND $text(s.content, decision_type) = 'entry' AND $text(s.content, state) = 'S1'"
        f" AND $text(s.scope, bucket) = '{bucket}'"
    )
    entries += f" AND s.timeframe = '{timeframe}'" if timeframe else ""
    of = f"{entries} AND {within(channel='strength', mode=mode)}"
    side = ("above", "below")[sign < 0]
    flow.check(
        "runtime (strength)",
        "SELECT s.id, $num(n.value, applied), $num(s.content, size_frac) - $num(s.content, base_size_frac)"
        " FROM ad_strands s, $each(s.content, nudges, n) WHERE $text(n.value, lever) = 'size_mult'"
        f" AND {of} ORDER BY s.seq DESC LIMIT 3",
        every(
            f"with size_mult {side} 1, and its size {side} that of the base",
            lambda _, applied, more: (applied - 1.0) * sign > 0 and more * sign > 0,
            3,
        ),
    )
    flow.check(
        "runtime (strength)",
        "SELECT s.seq, count(DISTINCT l.key) FROM ad_strands s, $each(s.content, nudges, n),"
        " $each(n.value, matched, m), learning_lessons l WHERE l.key = $text(m.value, lesson_id)"
        " AND $text(n.value, lever) = 'size_mult' AND l.lesson_type = 'pm_strength' AND l.module = 'pm'"
        f" AND {of} GROUP BY s.seq ORDER BY s.seq DESC LIMIT 3",
        every("naming lessons of pm_strength", lambda _, lessons: lessons > 0, 3),
    )
    (before,) = flow.ask(f"SELECT s.id FROM ad_strands s WHERE {entries} ORDER BY s.seq LIMIT 1")
    (after,) = flow.ask(f"SELECT s.id FROM ad_strands s WHERE {of} ORDER BY s.seq DESC LIMIT 1")
    first, last = ((ident, applied(flow, str(ident), "size_mult")) for (ident,) in (before, after))
    _keep(flow, f"size_mult of S1 entries, {', '.join(filter(None, (bucket, timeframe)))}{_under(mode)}", first, last)


def applied(flow: Flow, strand: str, lever: str) -> float:
    """What an action applied of a multiplier; 1 where nothing moved it."""
    found = flow.ask(
        "SELECT $num(n.value, applied) FROM ad_strands s, $each(s.content, nudges, n) WHERE s.id = :strand"
        " AND $text(n.value, lever) = :lever",
        strand=strand,
        lever=lever,
    )
    return float(found[0][0]) if found else 1.0
