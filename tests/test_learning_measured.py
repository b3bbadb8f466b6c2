"""The page about what learning does, and the scripts behind it in a small mode."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import numpy as np
import pytest
from bench import lessons, null_campaign
from scipy.stats import binomtest
from tools import learning_measured, random_labels, uplift_on_real_bars

from edgebook.domain.decay import HOUR
from edgebook.learning.table import TradeTable
from edgebook.runtime.lesson_money import Closed

PAGE = Path(__file__).resolve().parents[1] / "docs" / "learning_measured.md"
SHARE = re.compile(r"(\d+) of (\d+) = (\d*\.\d) % \[(\d*\.\d), (\d*\.\d)\]")
GAP = re.compile(r"([+-]\d+\.\d+) \[([+-]\d+\.\d+), ([+-]\d+\.\d+)\]")
WEEK = 7 * 24 * HOUR


# ---- the page


def test_every_share_on_the_page_is_what_its_counts_say_with_its_exact_interval():
    found = SHARE.findall(PAGE.read_text())
    assert len(found) >= 40
    for hits, of, share, low, high in found:
        exact = binomtest(int(hits), int(of)).proportion_ci(0.95, method="exact")
        assert float(share) == pytest.approx(100 * int(hits) / int(of), abs=0.051)
        assert float(low) == pytest.approx(100 * exact.low, abs=0.06)
        assert float(high) == pytest.approx(100 * exact.high, abs=0.06)


def test_every_difference_on_the_page_lies_in_its_interval():
    found = GAP.findall(PAGE.read_text())
    assert len(found) >= 12
    assert all(float(low) <= float(value) <= float(high) for value, low, high in found)


def test_met_and_missed_on_the_page_follow_from_the_figures():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    planted = [row for row in rows if re.search(r"at least [\d.]+ %: (met|MISSED)", row)]
    assert len(planted) == 3
    for row in planted:
        line, said = re.search(r"at least ([\d.]+) %: (met|MISSED)", row).groups()
        assert (said == "met") == (float(SHARE.search(row)[3]) >= float(line))
    for row in (row for row in rows if re.search(r"\| [\d.]+: (met|MISSED) \|", row)):
        target, said = re.search(r"\| ([\d.]+): (met|MISSED) \|", row).groups()
        assert (said == "met") == (float(row.split("|")[2]) <= float(target))


def test_the_page_shows_a_plot_that_is_there_and_says_how_to_make_it_again():
    text = PAGE.read_text()
    assert (PAGE.parent / learning_measured.PLOT).is_file()
    for script in ("null_campaign", "random_labels", "uplift_on_real_bars", "lessons.py", "learning_measured"):
        assert script in text


# ---- worlds


@pytest.mark.parametrize("kind", null_campaign.OUTCOMES)
def test_outcomes_have_mean_zero_and_the_promised_spread(kind):
    drawn = null_campaign.outcomes(np.random.default_rng(1), 200_000, kind)
    assert abs(drawn.mean()) < 0.02
    assert drawn.std() == pytest.approx(null_campaign.SD, rel=0.03)


def test_null_histories_take_every_kind_in_turn():
    kinds = {tuple(null_campaign.null_history(seed, 30)[2].values()) for seed in range(12)}
    assert len(kinds) == 12


@pytest.mark.parametrize("pair", [False, True])
def test_a_planted_slice_has_exactly_its_trades_and_half_an_r_more(pair):
    gaps = []
    for seed in range(30):
        trades, dims, scope = null_campaign.planted_history(seed, 600, 60, pair)
        assert set(scope) <= set(dims)
        hit = np.all([trades[dim] == value for dim, value in scope.items()], axis=0)
        assert hit.sum() == 60
        gaps.append(trades["rr"][hit].mean() - trades["rr"][~hit].mean())
    assert np.mean(gaps) == pytest.approx(0.5, abs=0.1)


def test_a_random_label_is_the_same_for_all_tokens_for_as_long_as_it_says():
    opened = np.sort(np.random.default_rng(2).integers(0, 60 * 24 * HOUR, 500))
    none = np.zeros(500, dtype=np.int64)
    table = TradeTable(np.array([str(i) for i in range(500)], dtype=object), opened, opened + HOUR, none * 1.0, none,
                       none, {})  # fmt: skip
    levels, codes = random_labels.labelled(table, 24, seed=3, beside=False).dims["label"]
    by_day = {}
    for day, code in zip((opened // (24 * HOUR)).tolist(), codes.tolist(), strict=True):
        assert by_day.setdefault(day, code) == code
    assert len(set(by_day.values())) == len(levels)


# ---- figures


@pytest.mark.parametrize("module", [null_campaign, random_labels, uplift_on_real_bars, learning_measured])
def test_examples_in_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 200), (14, 200), (10, 10)])
def test_shares_have_exact_intervals(hits, n):
    exact = binomtest(hits, n).proportion_ci(0.95, method="exact")
    for share in (null_campaign.share(hits, n), random_labels.share(hits, n)):
        assert share["ci95"] == pytest.approx([exact.low, exact.high], abs=1e-4)


def test_a_gap_is_the_difference_of_means_weighted_by_what_was_invested():
    rng = np.random.default_rng(4)
    arms = []
    for shift in (0.5, 0.0):
        rows = zip(rng.integers(0, 30, 400), rng.uniform(10, 90, 400), rng.normal(shift, 1, 400), strict=True)
        arms.append(
            [Closed(0, int(k) * WEEK + 1, float(w), float(y), float(2 * y), frozenset(), {}) for k, w, y in rows]
        )
    found = uplift_on_real_bars.gap(*arms)
    rr = [sum(t.invested_usd * t.rr for t in arm) / sum(t.invested_usd for t in arm) for arm in arms]
    per_100 = [100 * sum(t.pnl_usd for t in arm) / sum(t.invested_usd for t in arm) for arm in arms]
    assert found["rr"] == pytest.approx(rr[0] - rr[1])
    assert found["pnl_per_100"] == pytest.approx(per_100[0] - per_100[1])
    assert found["rr_ci90"][0] < found["rr"] < found["rr_ci90"][1]
    assert uplift_on_real_bars.gap(arms[0], [])["rr"] is None


def test_quantiles_count_never_as_longer_than_anything():
    assert null_campaign._quantile([3.0, None, 1.0, 2.0], 0.5) == 3.0
    assert null_campaign._quantile([3.0, None, 1.0, 2.0], 0.9) is None


# ---- small modes


@pytest.mark.slow
def test_the_null_campaign_is_silent_on_ten_histories():
    """Decisions 48: at most one history in ten has a claim."""
    active, acts, moved = null_campaign.null_results(0, 10, 300)
    assert active["of"] == acts["of"] == 10
    assert active["hits"] <= 1
    assert acts["hits"] <= 2
    assert moved["ours"] < 0.02
    assert json.loads(json.dumps(active))["per_kind"].keys() >= set(null_campaign.KINDS)


def test_a_strong_slice_is_found_by_the_small_campaign():
    rows = [null_campaign.planted_row(seed, 2_500, 250, False) for seed in range(3)]
    assert sum(row["acts"] for row in rows) >= 2


def test_lessons_of_a_few_thousand_trades_are_built_and_timed():
    told = lessons.build_once(3_000, 1)
    assert told["acting"] == 1
    assert told["lessons"] > 5
    assert told["seconds"] > 0
    assert told["peak_rss_mb"] >= told["rss_before_mb"] > 0


@pytest.mark.slow
def test_the_cost_of_a_trade_is_measured_on_a_book(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "SIM_DAYS", 12)
    monkeypatch.setattr(lessons, "TIMED", 4)
    book = lessons.simulated_book(tmp_path)
    told = lessons.incremental_once(book, frozenset({"position_closed"}), 2, durable=False)
    assert told["timed_trades"] == 4
    assert told["rows_after"] >= told["rows_before"] > 0
    assert told["rows_changed_by_last_run"] > 100
    assert 0 < told["commit_ms"] < told["mean_ms"]
