"""The calibration page: its script runs on any folder of bars, and what it prints is what the bars say."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections import Counter

import duckdb
import numpy as np
import pytest

SECTIONS = (
    *("What was found", "1. Data sets", "2. States and transitions", "3. Scores", "4. Flags", "5. Gates"),
    *("6. EDX and its knees", "7. The DX ladder", "8. Policies", "9. One attempt, bar by bar"),
)
WARM, BARS = 333, 3_000
HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """A folder of data sets with one set, ``made_up``: two random walks at 1h with long swings up and down."""
    data = tmp_path_factory.mktemp("data")
    folder = data / "made_up"
    folder.mkdir()
    (data / "labels").mkdir()
    (data / "labels" / "calls.parquet").write_bytes(b"no bars")
    for seed, symbol in enumerate(("AAAUSDT", "BBBUSDT")):
        write_bars(folder / f"{symbol}-1h.parquet", closes(seed), seed)
    return data


def closes(seed):
    """Closes that trend for some 400 bars, then the other way."""
    noise = np.random.default_rng(seed).normal(0.0, 0.01, BARS)
    return 100.0 * np.exp(np.cumsum(noise - 0.0012 * np.sign(np.sin(np.arange(BARS) / 130.0 + seed))))


def write_bars(path, close, seed):
    """One Parquet file of bars with these closes."""
    rng = np.random.default_rng(100 + seed)
    opened = np.r_[close[0], close[:-1]]
    high = np.maximum(opened, close) * (1.0 + rng.uniform(0.0, 0.006, len(close)))
    low = np.minimum(opened, close) * (1.0 - rng.uniform(0.0, 0.006, len(close)))
    columns = {
        "timestamp": np.arange(len(close), dtype=np.int64) * HOUR + 1_700_000_000_000_000 // HOUR * HOUR,
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "volume": rng.uniform(1.0, 9.0, len(close)),
    }
    with duckdb.connect() as connection:
        names = ", ".join(f"unnest(${name}) AS {name}" for name in columns)
        connection.execute(f"CREATE TABLE bars AS SELECT {names}", {k: v.tolist() for k, v in columns.items()})
        connection.execute(f"COPY bars TO '{path}' (FORMAT parquet)")


def states_of(close):
    """The state of every bar after the warm-up, straight from the table of the specification."""
    ema = dict.fromkeys((20, 30, 60, 144, 250, 333), close[0])
    state, states = "S4", []
    for i, price in enumerate(close.tolist()):
        for n in ema:
            ema[n] += (price - ema[n]) * 2.0 / (n + 1)
        if i >= WARM:
            state = following(state, price, *ema.values())
            states.append(state)
    return states


def following(state, price, e20, e30, e60, e144, e250, e333):
    """The next state, first match of the table."""
    fast_up, fast_down = e20 > e60 and e30 > e60, e20 < e60 and e30 < e60
    falling = fast_down and e60 < e144 < e250 < e333
    tests = {
        "S4": [(falling, "S0")],
        "S0": [(fast_up and price > e60, "S1")],
        "S1": [(falling, "S0"), (price > e333, "S2")],
        "S2": [(price < e333, "S1"), (fast_up and e60 > e144 > e250 > e333, "S3")],
        "S3": [(max(e20, e30, e60, e144, e250) < e333, "S0")],
    }
    return next((to for found, to in tests[state] if found), state)


@pytest.fixture(scope="module")
def run(repo, bars, tmp_path_factory):
    """The finished quick run: its page as text, and the folder it was written to."""
    out = tmp_path_factory.mktemp("docs")
    script = repo / "tools" / "engine_on_real_bars.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--data", str(bars), "--out", str(out)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (out / "engine_on_real_bars.md").read_text(encoding="utf-8"), out


def row_after(page, heading):
    """Cells of the first row of the first table whose header begins with these cells."""
    lines = page.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading}"))
    return [cell.strip() for cell in lines[at + 2].strip("|").split("|")]


def test_the_page_has_every_section_and_every_plot_it_shows(run):
    """Ten headings in order, no empty figures, and no link to a plot that is not there."""
    page, out = run
    headings = re.findall(r"^## (.+)$", page, flags=re.MULTILINE)
    assert tuple(headings) == SECTIONS
    shown = re.findall(r"\]\(([^)]+\.png)\)", page)
    assert len(shown) >= 6
    assert all((out / name).stat().st_size > 5_000 for name in shown)
    assert "nan" not in re.findall(r"[a-z]+", page)
    assert "Left out with `--quick`" in page


def test_the_table_of_states_equals_a_second_implementation(run):
    """Shares, transitions and the number of bars, computed from the closes alone without the engine."""
    page, _ = run
    walks = [states_of(closes(seed)) for seed in range(2)]
    found = Counter(state for walk in walks for state in walk)
    total = sum(found.values())
    assert total == 2 * (BARS - WARM)
    assert found["S3"] > 100, "the made-up bars should reach a full trend"
    shares = row_after(page, "set | S0 | S1 | S2 | S3 | S4 |")
    assert shares == ["made_up 1h", *(f"{100 * found[f'S{i}'] / total:.1f}" for i in range(5))]
    moves = Counter(pair for walk in walks for pair in zip(["S4", *walk], walk, strict=False) if pair[0] != pair[1])
    ways = [("S4", "S0"), ("S0", "S1"), ("S1", "S0"), ("S1", "S2"), ("S2", "S1"), ("S2", "S3"), ("S3", "S0")]
    cells = row_after(page, "set | S4→S0 |")[1 : 1 + len(ways)]
    assert cells == [f"{1000 * moves[way] / total:.2f} ({moves[way]:,})" for way in ways]
    assert row_after(page, "folder | name here |")[3:5] == [f"{2 * BARS:,}", f"{total:,}"]


def test_a_folder_without_bars_is_refused_in_one_line(repo, tmp_path, monkeypatch, capsys):
    """Exit code 2, and one line that names the option and what would be right; nothing is written."""
    monkeypatch.syspath_prepend(str(repo / "tools"))
    script = importlib.import_module("engine_on_real_bars")
    assert script.main(["--quick", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert re.fullmatch(r"error: --data .+SYMBOL-<timeframe>\.parquet\n", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_difference_of_ratios_has_the_error_of_leaving_weeks_out(repo, monkeypatch):
    """The linearised standard error agrees with a jackknife over paired weeks, and equal runs do not differ."""
    monkeypatch.syspath_prepend(str(repo / "tools"))
    policies = importlib.import_module("calibration.policies")
    rng = np.random.default_rng(7)
    weeks = 150
    base = rng.uniform(50.0, 150.0, weeks)
    pnl = rng.normal(1.0, 10.0, weeks)
    other, other_base = pnl + rng.normal(0.5, 3.0, weeks), base * rng.uniform(0.9, 1.2, weeks)

    def gain(keep):
        return other[keep].sum() / other_base[keep].sum() - pnl[keep].sum() / base[keep].sum()

    left_out = np.array([gain(np.arange(weeks) != week) for week in range(weeks)])
    jackknife = np.sqrt((weeks - 1) * np.var(left_out))
    found = policies.of_ratios(other, other_base, pnl, base)
    assert found.value == pytest.approx(gain(np.arange(weeks)))
    assert found.error == pytest.approx(jackknife, rel=0.03)
    assert policies.of_ratios(pnl, base, pnl, base).value == 0.0
    sums = policies.of_sums(other, pnl)
    assert sums.value == pytest.approx((other - pnl).sum())
    assert sums.error == pytest.approx(np.std(other - pnl, ddof=1) * np.sqrt(weeks))
