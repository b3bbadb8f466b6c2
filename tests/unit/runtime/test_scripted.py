"""A script in the place of the engine: what follows from states and scores follows as ever (decisions 37)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.adapters.feeds.script import SCORES, ScriptedReading
from edgebook.adapters.feeds.sim import SimSource
from edgebook.domain.errors import InputError
from edgebook.domain.timeframe import micros
from edgebook.engine.columns import EngineColumns, advance, reading
from edgebook.engine.gates import BASE_GATES, flags_over
from edgebook.engine.states import S0, STATE_NAMES
from edgebook.market.bars import BarSeries
from edgebook.runtime.scripted import NOT_SCRIPTED, Script

STEP = micros("1h")
T0 = 400_000 * STEP
#: What the engine's rules make of states, scores and the bars themselves.
FOLLOWS = ("state", "prev_state", "exit_reason", "bars_in_state", "bars_since_s3", "s3_start_ts")
FOLLOWING_FLAGS = ("emergency_exit", "prev_emergency", "reclaimed_ema333", "exit_position", "trim_flag")
#: Scores a script can set and that the columns hold.
WRITTEN = sorted(SCORES)


def bars_of(closes, *, gaps=()):
    """Hourly bars with these closes; after the bars named in ``gaps`` some are missing: {row: how many}."""
    closes = np.asarray(closes, dtype=float)
    missing = np.zeros(len(closes), dtype=np.int64)
    for row, count in dict(gaps).items():
        missing[row] = count
    opens = T0 + STEP * (np.arange(len(closes)) + np.cumsum(missing))
    before = np.r_[closes[0], closes[:-1]]
    high, low = np.maximum(before, closes), np.minimum(before, closes)
    return BarSeries("AAAUSDT", "1h", opens, before, high, low, closes, np.ones(len(closes)))


def columns_of(closes, **kw):
    """What the engine measures on them."""
    return advance(None, bars_of(closes, **kw))[0]


def says(ts, state="", **values):
    """One scripted reading."""
    return ScriptedReading("AAAUSDT", "1h", ts, state, values)


def written(columns, first):
    """A real engine's columns from a row on, written down as a script: a state at every change, scores on every bar."""
    table = {name: columns.floats(name).tolist() for name in WRITTEN}
    states, times, dips = columns.state.tolist(), columns.ts.tolist(), columns["first_dip"].tolist()
    rows = []
    for i in range(first, len(columns)):
        changed = i == first or states[i] != states[i - 1]
        scores = {name: values[i] for name, values in table.items() if values[i] == values[i]}
        state = STATE_NAMES[states[i]] if changed else ""
        rows.append(ScriptedReading(columns.symbol, "1m", times[i], state, {**scores, "first_dip": dips[i]}))
    return rows


# ---------------------------------------------------------------- the engine as the oracle


@pytest.fixture(scope="module")
def real():
    """Four days of simulated minutes of some tokens: what the engine measured, the first row in S0, and the script."""
    source = SimSource(3, 4, prehistory=1)
    found = []
    for symbol in source.symbols[-3:]:
        columns = advance(None, source.bars(symbol, source.span[0], source.start + 4 * 24 * STEP))[0]
        first = int(np.argmax(columns.state == S0))
        assert columns.state[first] == S0
        found.append((columns, first, Script(written(columns, first)).over(columns)))
    return found


def test_a_real_engines_states_and_scores_written_as_a_script_give_its_own_columns_back(real):
    """States, changes, exits, counters and flags are functions of states, scores and bars: equal to the engine's."""
    seen = dict.fromkeys(FOLLOWING_FLAGS, 0)
    for columns, first, scripted in real:
        changes = np.flatnonzero(columns.state != columns.prev_state)
        settled = int(changes[changes > first][0])  # the script's first state has no beginning
        assert np.array_equal(scripted.state[first:], columns.state[first:])
        for name in FOLLOWS:
            assert np.array_equal(scripted[name][settled:], columns[name][settled:]), name
        for name in FOLLOWING_FLAGS:
            assert np.array_equal(scripted[name][settled:], columns[name][settled:]), name
            seen[name] += int(columns[name][settled:].sum())
        for name in WRITTEN:
            known = np.isfinite(columns.floats(name)[first:])
            assert np.array_equal(scripted.floats(name)[first:][known], columns.floats(name)[first:][known]), name
    assert all(seen.values()), seen


def test_gates_on_the_script_are_gates_on_the_engine(real):
    """The code that asks gates cannot tell the two apart."""
    asked = 0
    for columns, first, scripted in real:
        begin = first + 1
        for one, other in zip(flags_over(scripted, BASE_GATES), flags_over(columns, BASE_GATES), strict=True):
            known = np.isin(columns.state[begin:], (1, 3))
            assert np.array_equal(one[begin:][known], other[begin:][known])
            asked += int(other[begin:][known].sum())
    assert asked > 0


def test_bars_are_never_touched(real):
    """Open, high, low, close, volume, bar index and gaps are those of the market."""
    columns, _, scripted = real[0]

    for name in ("open", "high", "low", "close", "volume", "bar_index", "gap_bars", "ts"):
        assert np.array_equal(scripted[name], columns[name]), name


# ---------------------------------------------------------------- what is said, and what is not


def test_what_no_line_is_about_is_read_by_the_engine():
    """Without a script, and of another symbol or timeframe: the very columns."""
    columns = columns_of(np.full(20, 100.0))

    assert NOT_SCRIPTED.over(columns) is columns
    assert Script([ScriptedReading("BBBUSDT", "1h", T0, "S1", {})]).over(columns) is columns
    assert Script([ScriptedReading("AAAUSDT", "4h", T0, "S1", {})]).over(columns) is columns


def test_a_bar_nothing_is_said_of_is_calm():
    """S0, no flag, no gate passed; the columns given are unchanged."""
    columns = columns_of(np.full(30, 100.0))
    before = columns.values.copy()
    scripted = Script([says(int(columns.ts[3]), "S0")]).over(columns)

    assert set(scripted.state.tolist()) == {S0}
    assert not scripted.flags[:, : FOLLOWING_FLAGS.index("trim_flag") + 1].any()
    assert not any(flags.any() for flags in flags_over(scripted, BASE_GATES))
    assert np.array_equal(columns.values, before, equal_nan=True)


def test_a_score_is_of_its_bar_only_and_a_state_stays():
    """The reading of the bar has it, its neighbours do not; the state goes on until another is said."""
    columns = columns_of(np.full(30, 100.0))
    ts = columns.ts
    scripted = Script([says(int(ts[5]), "S1"), says(int(ts[7]), ts_score=0.77, ema60=100.0)]).over(columns)

    found = [reading(scripted, i) for i in range(4, 10)]
    assert [r.state for r in found] == ["S0", "S1", "S1", "S1", "S1", "S1"]
    assert [r.transition for r in found] == ["", "S0->S1", "", "", "", ""]
    assert [r.ts_score for r in found] == [0.3, 0.3, 0.3, 0.77, 0.3, 0.3]
    assert flags_over(scripted, BASE_GATES)[0].tolist().index(True) == 7


def test_a_change_on_a_missing_bar_shows_on_the_next_one_there_is():
    """As the engine, which compares with the last bar it has seen; bars in a state are bars, not hours."""
    columns = columns_of(np.full(20, 100.0), gaps={6: 3})  # three bars are missing before row 6
    at = int(columns.ts[6]) - 2 * STEP
    scripted = Script([says(at, "S1")]).over(columns)

    assert [reading(scripted, i).transition for i in (5, 6, 7)] == ["", "S0->S1", ""]
    assert scripted["bars_in_state"].tolist()[5:9] == [5, 0, 1, 2]
    assert scripted["bars_in_state"].tolist()[:3] == [0, 1, 2]


def test_a_token_that_comes_late_has_the_state_that_was_said_before():
    """A state said before the first bar holds from that bar on."""
    columns = columns_of(np.full(10, 100.0))
    scripted = Script([says(T0 - 5 * STEP, "S1"), says(int(columns.ts[4]), "S2")]).over(columns)

    assert [STATE_NAMES[s] for s in scripted.state] == ["S1"] * 4 + ["S2"] * 6
    assert scripted["bars_in_state"].tolist()[4:7] == [0, 1, 2]


@pytest.mark.parametrize(
    ("before", "after", "exit_reason"),
    [("S1", "S0", "s1_to_s0_bearish_order"), ("S3", "S0", "all_emas_below_333"), ("S2", "S0", "fast_band_at_bottom")],
)
def test_the_end_of_an_attempt_has_the_reason_the_engine_would_give(before, after, exit_reason):
    """And a fall from S1 is an emergency of its own."""
    way = {"S1": ["S1"], "S2": ["S1", "S2"], "S3": ["S1", "S2", "S3"]}[before]
    columns = columns_of(np.full(20, 100.0))
    lines = [says(int(columns.ts[i]), state) for i, state in enumerate([*way, after], start=2)]
    last = reading(Script(lines).over(columns), 2 + len(way))

    assert (last.transition, last.exit_position, last.exit_reason) == (f"{before}->{after}", True, exit_reason)
    assert last.emergency_exit == (before == "S1")


# ---------------------------------------------------------------- cuts, and mistakes


@given(
    cut=st.integers(1, 59),
    walk=st.lists(st.sampled_from(["on", "back", "stay"]), min_size=10, max_size=40),
    holes=st.dictionaries(st.integers(1, 59), st.integers(1, 6), max_size=4),
)
def test_any_cut_of_a_series_gives_the_same_columns(cut, walk, holes):
    """But what a first row cannot know: whether the bar before it was an emergency, and bars counted over a hole."""
    on = {"S0": "S1", "S1": "S2", "S2": "S3", "S3": "S3"}
    back = {"S0": "S0", "S1": "S0", "S2": "S1", "S3": "S0"}
    closes = 100 + np.sin(np.arange(60))
    bars = bars_of(closes, gaps=holes)
    state, lines = "S0", []
    for i, step in enumerate(walk):
        state = {"on": on, "back": back, "stay": {s: s for s in on}}[step][state]
        lines.append(says(int(bars.close_ts[i + 1]), state, ema333=100.0))
    script = Script(lines)
    first, memory = advance(None, bars.slice(0, int(bars.ts_open[cut])))
    rest, _ = advance(memory, bars.slice(int(bars.ts_open[cut]), 1 << 62))
    whole = script.over(advance(None, bars)[0])
    parts = [script.over(first), script.over(rest)]

    assert np.array_equal(np.vstack([p.values for p in parts]), whole.values, equal_nan=True)
    for name in ("state", "prev_state", "exit_reason", "bar_index", "gap_bars"):
        assert np.array_equal(np.concatenate([p[name] for p in parts]), whole[name]), name
    known = np.delete(np.arange(60), cut)
    assert np.array_equal(np.vstack([p.flags for p in parts])[known], whole.flags[known])
    if not holes:
        same = whole["bars_since_s3"][cut:] >= 0
        assert np.array_equal(parts[1]["bars_since_s3"][same], whole["bars_since_s3"][cut:][same])


def test_two_lines_on_one_bar_are_refused():
    """Which of them holds would depend on the order of the file."""
    with pytest.raises(InputError, match=r"AAAUSDT 1h \d{4}-\d\d-\d\dT\d\d:00:00Z has two lines for one bar"):
        Script([says(T0, "S1"), says(T0, ts_score=0.7)])


@pytest.mark.parametrize("way", [["S2"], ["S1", "S3"], ["S1", "S2", "S4"], ["S3"]])
def test_a_change_of_state_that_no_engine_makes_is_refused(way):
    """It names both states."""
    with pytest.raises(InputError, match=rf"AAAUSDT 1h \S+Z: no engine goes from S\d to {way[-1]}"):
        Script([says(T0 + i * STEP, state) for i, state in enumerate(way)])


def test_no_bars_no_columns():
    """An empty part of a series stays empty."""
    empty = columns_of(np.full(5, 100.0)).rows(0, 0)
    assert isinstance(Script([says(T0, "S1")]).over(empty), EngineColumns)
