"""Reading a signal line: what is right is kept, what is wrong is named."""

from __future__ import annotations

import json

import pytest

from edgebook.domain.errors import InputError
from edgebook.trading.decision import parse_signal
from edgebook.trading.signals import signal_strand

GOOD = {
    "id": "sig-1",
    "ts": "2021-04-18T21:00:00Z",
    "curator": "ann",
    "token": {"symbol": "KEYUSDT", "ticker": "KEY", "chain": "exchange"},
    "intent": "new_discovery",
    "mapping_confidence": 0.95,
    "market": {"mcap_usd": 7e8, "vol24h_usd": 1.2e7, "age_days": 13.96},
}


def line(**changes):
    return json.dumps({k: v for k, v in (GOOD | changes).items() if v is not ...})


def test_a_good_line():
    """Fields, platform jsonl, contract = symbol, time in microseconds UTC."""
    parsed = parse_signal(line())
    said = parsed.payload
    assert parsed.ts == 1618779600 * 1_000_000
    assert (said.platform, said.signal_id, said.contract, said.ticker) == ("jsonl", "sig-1", "KEYUSDT", "KEY")
    assert (said.mapping_confidence, said.mcap_usd, said.liquidity_usd) == ("high", 7e8, None)


@pytest.mark.parametrize(("confidence", "grade"), [(0.9, "high"), (0.89, "medium"), (0.7, "medium"), (0.69, "low")])
def test_confidence_grades(confidence, grade):
    """Decisions 40: .9 high, .7 medium, else low."""
    assert parse_signal(line(mapping_confidence=confidence)).payload.mapping_confidence == grade


def test_mocking_is_an_intent_that_does_not_buy():
    assert parse_signal(line(intent="mocking_negative")).payload.intent == "mock"


def test_times_are_read_with_their_zone():
    """+02:00 is two hours earlier in UTC; fractions of a second are kept."""
    assert parse_signal(line(ts="2021-04-18T23:00:00.25+02:00")).ts == 1618779600_250_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "one JSON object"),
        (line(id=...), "id must be text"),
        (line(id=""), "id must be text"),
        (line(id=7), "id must be text"),
        (line(ts="yesterday"), "ts must be a time"),
        (line(ts="2021-04-18T21:00:00"), "no time zone"),
        (line(curator=None), "curator must be text"),
        (line(curator="a\x00b"), "curator holds a NUL"),
        (line(token="KEY"), "token must be an object"),
        (line(token={}), "token.symbol must be text"),
        (line(token={"symbol": "WHO"}), "'WHO' is not a known token"),
        (line(intent=...), "intent must be text"),
        (line(mapping_confidence=...), "mapping_confidence must be a number"),
        (line(mapping_confidence=1.5), "from 0 to 1"),
        (line(mapping_confidence=True), "mapping_confidence must be a number"),
        (line(market={"mcap_usd": -1}), "market.mcap_usd must be a number, 0 or more"),
        (line(market={"vol24h_usd": "much"}), "market.vol24h_usd"),
        (line(market={"age_days": float("nan")}), "market.age_days"),
        (line(market=[]), "market must be an object"),
    ],
)
def test_a_bad_line_is_one_clear_error(text, message):
    """One line, naming where and which field."""
    with pytest.raises(InputError) as error:
        parse_signal(text, tokens={"KEYUSDT"}, where="signals.jsonl:7")
    assert error.value.message.startswith("signals.jsonl:7: ")
    assert message in error.value.message
    assert "\n" not in error.value.message


def test_the_same_message_is_the_same_strand():
    """One strand per (platform, message, contract), whenever it is delivered; its packet is itself."""
    parsed = parse_signal(line())
    first, second = signal_strand(parsed, parsed.ts), signal_strand(parsed, parsed.ts + 5)
    assert first.id == second.id == first.correlation_id
    other = parse_signal(line(token={"symbol": "KEY2"}))
    assert signal_strand(other, 0).id != first.id


def test_recorded_signals_parse(real_data):
    """Every recorded line is readable, in order of time, with known tokens."""
    folder = real_data / "signals" / "binance_spot_1h_2021_2023"
    symbols = {row.split(",")[0] for row in (folder / "tokens.csv").read_text().splitlines()[1:]}
    times = [parse_signal(text, tokens=symbols).ts for text in (folder / "signals.jsonl").read_text().splitlines()]
    assert len(times) > 1000
    assert times == sorted(times)
