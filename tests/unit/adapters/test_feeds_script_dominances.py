"""Dominances of a written market: bars of their own, no token among the others, and a driver that can be scripted."""

from __future__ import annotations

import json

import pytest

from edgebook.adapters.feeds.script import ScriptSource
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import InputError
from edgebook.runtime.bootstrap import script_feed
from edgebook.runtime.market import Tape

START = 1_704_067_200_000_000  # 2024-01-01, midnight UTC
HEADER = {"script": 1, "start": "2024-01-01T00:00:00Z", "end": "2024-01-02T00:00:00Z", "base": "1h", "history_days": 1}
TOKEN, USDT = {"token": "AAAUSDT"}, {"dominance": "USDT.D", "price": 5}
TS = "2024-01-01T05:00:00Z"


def written(folder, *rows):
    """The file of a script with these lines."""
    path = folder / "script.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_dominance_is_no_token_and_has_bars_in_a_source_of_its_own(tmp_path):
    """The token table does not know it; its own source knows nothing else, over the same span."""
    move = {"symbol": "USDT.D", "ts": TS, "price": 6}
    late = {"dominance": "BTC.D", "first": "2024-01-01T20:00:00Z"}
    source = ScriptSource(written(tmp_path, HEADER, USDT, late, TOKEN, move))
    own = source.dominances

    assert source.symbols == ("AAAUSDT",)
    assert list(source.tokens()) == ["AAAUSDT"]
    assert own is not None
    assert own.symbols == ("BTC.D", "USDT.D")
    assert (own.span, own.base_timeframe) == (source.span, source.base_timeframe)
    assert own.bars("USDT.D", START, START + DAY).close.tolist() == [5.0] * 4 + [6.0] * 20
    assert own.bars("BTC.D", START, START + DAY).ts_open.tolist() == [START + hour * HOUR for hour in range(20, 24)]


def test_a_script_without_dominances_has_no_drivers_of_its_own(tmp_path):
    """The feed is then as it ever was."""
    feed = script_feed(written(tmp_path, HEADER, TOKEN))

    assert feed.drivers is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"dominance": "ETH.D"}, "'ETH.D' must be one of BTC.D, USDT.D, once"),
        ({"dominance": ["BTC.D"]}, "must be one of BTC.D, USDT.D, once"),
        ({"dominance": "USDT.D", "price": 100}, "a percentage above 0 and below 100, was 100"),
        ({"dominance": "USDT.D", "price": "5"}, "price was '5'"),
        ({"dominance": "USDT.D", "volume": 1}, "unknown field 'volume'"),
        ({"dominance": "USDT.D", "first": "soon"}, "first was 'soon'"),
    ],
)
def test_a_broken_line_is_named(tmp_path, row, said):
    """File, line and what would be right."""
    with pytest.raises(InputError) as found:
        ScriptSource(written(tmp_path, HEADER, TOKEN, row))

    assert "script.jsonl:3: " in found.value.message
    assert said in found.value.message


def test_one_dominance_twice_is_refused(tmp_path):
    """A second line of one is no second series."""
    with pytest.raises(InputError, match=r"script\.jsonl:4: dominance 'USDT\.D' must be one of BTC\.D, USDT\.D, once"):
        ScriptSource(written(tmp_path, HEADER, TOKEN, USDT, USDT))


def test_dominances_alone_are_no_market(tmp_path):
    """There must be something to trade."""
    with pytest.raises(InputError, match="at least one line with a token"):
        ScriptSource(written(tmp_path, HEADER, USDT))


def test_a_scripted_dominance_moves_appetite_the_other_way(tmp_path):
    """USDT.D in S1 on its hourly bar takes 3 * .22 * .25 from A and gives E 3 * .22 * .15; no other driver is warm."""
    rising = {"symbol": "usdtd", "timeframe": "1h", "ts": TS, "state": "S1"}
    feed = script_feed(written(tmp_path, HEADER, TOKEN, USDT, rising))
    tape = Tape(feed.source, ["1h"], drivers=feed.drivers, start=feed.start, script=feed.script)
    tape.load(tape.start)
    before, after = (tape.regime("1h", "", START + hour * HOUR) for hour in (4, 5))

    assert (before.a_base, before.e_base) == pytest.approx((0.5 + 3 * 0.22 * 0.30, 0.5 - 3 * 0.22 * 0.30))
    assert (after.a_base, after.e_base) == pytest.approx((0.5 - 3 * 0.22 * 0.25, 0.5 + 3 * 0.22 * 0.15))
