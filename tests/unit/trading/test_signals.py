"""Reading a signal line: what is right is kept, what is wrong is named."""

from __future__ import annotations

import json

import pytest

from edgebook.adapters.feeds.signals import TableResolver, read_tokens
from edgebook.domain.decay import HOUR
from edgebook.domain.errors import InputError
from edgebook.domain.mentions import TokenMatch
from edgebook.trading.signals import (
    ACCEPTED,
    KNOWN,
    REFUSED,
    message_order,
    parse_signal,
    reading_order,
    receive,
    signal_strand,
)

GOOD = {
    "id": "sig-1",
    "ts": "2021-04-18T21:00:00Z",
    "curator": "ann",
    "token": {"symbol": "KEYUSDT", "ticker": "KEY", "chain": "exchange"},
    "intent": "new_discovery",
    "mapping_confidence": 0.95,
    "market": {"mcap_usd": 7e8, "vol24h_usd": 1.2e7, "age_days": 13.96},
}


#: 2021-04-20T00:00:00Z, after every message here.
HEARD = 1_618_876_800_000_000


def line(**changes):
    return json.dumps({k: v for k, v in (GOOD | changes).items() if v is not ...})


def only_key(mention):
    """A resolver that knows one token, and nothing of how it was found."""
    if mention.symbol != "KEYUSDT":
        raise InputError(f"token.symbol {mention.symbol!r} is not a known token")
    return TokenMatch("KEYUSDT", "KEY", "exchange", "KEYUSDT", "ticker_only", "resolved")


def strand(now=HEARD, **changes):
    return signal_strand(parse_signal(line(**changes)), now)


def test_a_good_line():
    """Fields, platform jsonl, contract = symbol, time in microseconds UTC."""
    parsed = parse_signal(line())
    said = parsed.payload
    assert parsed.ts == 1618779600 * 1_000_000
    assert (said.platform, said.signal_id, said.contract, said.ticker) == ("jsonl", "sig-1", "KEYUSDT", "KEY")
    assert (said.mapping_confidence, said.mcap_usd, said.liquidity_usd) == ("high", 7e8, None)
    assert (said.allocation_multiplier, parse_signal(line(allocation_multiplier=2)).payload.allocation_multiplier) == (
        None, 2.0,
    )  # fmt: skip


@pytest.mark.parametrize(("confidence", "grade"), [(0.9, "high"), (0.89, "medium"), (0.7, "medium"), (0.69, "low")])
def test_confidence_grades(confidence, grade):
    """Decisions 40: .9 high, .7 medium, else low."""
    assert parse_signal(line(mapping_confidence=confidence)).payload.mapping_confidence == grade


@pytest.mark.parametrize(
    ("intent", "ours"), [("mocking_negative", "mock"), ("sell_call", "sell"), ("whatever", "whatever")]
)
def test_intents_have_our_names(intent, ours):
    """Decisions 40: mocking_negative is mock, a sell call is sell; a name nobody knows is kept as it is."""
    assert parse_signal(line(intent=intent)).payload.intent == ours


@pytest.mark.parametrize(
    ("changes", "platform", "ident"),
    [
        ({}, "jsonl", "sig-1"),
        ({"platform": " Telegram"}, "telegram", "sig-1"),
        ({"platform": ""}, "jsonl", "sig-1"),
        ({"id": ..., "message_id": "m-7"}, "jsonl", "m-7"),
        ({"message_id": "sig-1"}, "jsonl", "sig-1"),
    ],
)
def test_platform_may_be_missing_and_the_id_has_two_names(changes, platform, ident):
    """platform defaults to jsonl and is written small; message_id is another word for id."""
    said = parse_signal(line(**changes)).payload
    assert (said.platform, said.signal_id) == (platform, ident)


@pytest.mark.parametrize(
    ("given", "address"),
    [("ann", "ann"), ("Ann", "Ann"), ("twitter:@Ann", "twitter:ann"), (" Telegram : ann ", "telegram:ann")],
)
def test_a_curator_is_an_id_or_a_handle_on_a_platform(given, address):
    """Ids are taken letter for letter, handles without @ and in small letters."""
    said = parse_signal(line(curator=given)).payload
    assert (said.curator, said.handle) == (address, address)


def test_a_resolver_says_which_token_is_meant():
    """Symbol, ticker, chain and contract are the resolver's, and so is how it found them."""
    said = parse_signal(line(token={"symbol": "KEYUSDT", "ticker": "no"}), resolve=only_key).payload
    assert (said.ticker, said.contract, said.mapping_reason) == ("KEY", "KEYUSDT", "ticker_only")


def test_without_a_resolver_the_message_is_taken_at_its_word():
    """Ticker and contract are the symbol, the chain is exchange, where the message does not say."""
    said = parse_signal(line(token={"symbol": "WHO"})).payload
    assert (said.ticker, said.chain, said.contract, said.mapping_reason) == ("WHO", "exchange", "WHO", "")
    told = parse_signal(line(token={"symbol": "WHO", "chain": "base", "contract": "0xAb"})).payload
    assert (told.chain, told.contract) == ("base", "0xAb")


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
        (line(token={"chain": "base"}), "token.ticker or token.contract will do as well"),
        (line(token={"symbol": 3}), "token.symbol must be text"),
        (line(token={"symbol": "KEYUSDT", "chain": "a|b"}), "token.chain 'a|b' holds a |"),
        (line(message_id="other"), "id 'sig-1' and message_id 'other'"),
        (line(id=..., message_id=7), "message_id must be text"),
        (line(platform=7), "platform must be text"),
        (line(id="\ud800"), "id holds half of a surrogate pair"),
        (line(curator={"x": "y" * 9000}), "curator must be text"),
        (line(token={"symbol": "WHO"}), "'WHO' is not a known token"),
        (line(intent=...), "intent must be text"),
        (line(mapping_confidence=...), "mapping_confidence must be a number"),
        (line(mapping_confidence=1.5), "from 0 to 1"),
        (line(mapping_confidence=True), "mapping_confidence must be a number"),
        (line(market={"mcap_usd": -1}), "market.mcap_usd must be a number, 0 or more"),
        (line(allocation_multiplier=2.1), "allocation_multiplier must be a number, from 1 to 2"),
        (line(allocation_multiplier=0.9), "allocation_multiplier must be a number, from 1 to 2"),
        (line(market={"vol24h_usd": "much"}), "market.vol24h_usd"),
        (line(market={"age_days": float("nan")}), "market.age_days"),
        (line(market=[]), "market must be an object"),
    ],
)
def test_a_bad_line_is_one_clear_error(text, message):
    """One line, naming where and which field."""
    with pytest.raises(InputError) as error:
        parse_signal(text, resolve=only_key, where="signals.jsonl:7")
    assert error.value.message.startswith("signals.jsonl:7: ")
    assert message in error.value.message
    assert "\n" not in error.value.message
    assert len(error.value.message) < 200


def test_the_same_message_is_the_same_strand():
    """One strand per (platform, message, contract), whenever it is delivered; its packet is itself."""
    parsed = parse_signal(line())
    first, second = signal_strand(parsed, parsed.ts), signal_strand(parsed, parsed.ts + 5)
    assert first.id == second.id == first.correlation_id
    other = parse_signal(line(token={"symbol": "KEY2"}))
    assert signal_strand(other, HEARD).id != first.id


@pytest.mark.parametrize(
    ("change", "candidate"),
    [
        ({"intent": "new_discovery"}, True),
        ({"intent": "other_positive"}, True),
        ({"intent": "mention_only"}, False),
        ({"intent": "profit_taking"}, False),
        ({"intent": "mocking_negative"}, False),
        ({"intent": "whatever"}, False),
    ],
)
def test_only_a_buy_intent_is_a_candidate(change, candidate):
    """trading.md 1.4: every mention is a strand, the tag dm_candidate is for those that ask for a buy."""
    found = strand(**change)
    assert found.kind == "social_lowcap"
    assert ("dm_candidate" in found.tags) is candidate
    assert {"curated", "social_signal"} <= set(found.tags)


def test_a_token_on_a_chain_nobody_trades_is_no_candidate():
    def elsewhere(mention):
        return TokenMatch("KEYUSDT", "KEY", "tron", "KEYUSDT", "ticker+chain_phrase", "chain_unresolved")

    found = signal_strand(parse_signal(line(), resolve=elsewhere), HEARD)
    assert (found.payload.chain, found.payload.mapping_status) == ("tron", "chain_unresolved")
    assert "dm_candidate" not in found.tags


# ------------------------------------------------------------------ once, and in order


def test_a_delivery_is_new_or_known():
    """The first delivery is accepted, the same message again is known, whenever it comes."""
    assert receive(None, strand(HEARD)).status == ACCEPTED
    assert receive(strand(HEARD), strand(HEARD + 900)).status == KNOWN


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text": "sell it all"}, "text was '', is 'sell it all'"),
        ({"intent": "mocking_negative"}, "intent was 'new_discovery', is 'mock'"),
        ({"ts": "2021-04-18T21:00:01Z"}, "ts was 1618779600000000"),
        ({"curator": "bob"}, "handle was 'ann', is 'bob'"),
        ({"market": {"mcap_usd": 1}}, "mcap_usd was 700000000.0"),
        ({"mapping_confidence": 0.5}, "mapping_confidence was 'high', is 'low'"),
        ({"text": "x" * 5000}, "text was ''"),
    ],
)
def test_the_same_message_with_other_content_is_refused_by_name(change, named):
    """One line that names message, platform, token and what differs; long values are cut."""
    receipt = receive(strand(), strand(**change))
    assert receipt.status == REFUSED
    assert "message 'sig-1' of platform jsonl about KEYUSDT was delivered before with other content" in receipt.reason
    assert named in receipt.reason
    assert "\n" not in receipt.reason
    assert len(receipt.reason) < 400


def test_what_registry_and_table_made_of_a_message_is_no_other_content():
    """The same words after a handle was registered, or the token table has learnt a reason, are known."""
    parsed = parse_signal(line(curator="twitter:ann"))
    stored = signal_strand(parsed, HEARD)
    assert receive(stored, signal_strand(parsed.by("ann"), HEARD)).status == KNOWN
    again = signal_strand(parse_signal(line(curator="twitter:ann"), resolve=only_key), HEARD)
    assert receive(stored, again).status == KNOWN


def test_lines_are_read_in_the_order_of_their_messages():
    """By time, platform, id; what cannot be read comes last; any shuffle of a delivery has one order."""
    late, early = line(id="a", ts="2021-04-19T21:00:00Z"), line(id="b")
    twin = line(id="b", platform="alpha")
    lines = ["{", late, early, twin, early]
    assert [lines[i] for i in reading_order(lines)] == [twin, early, early, late, "{"]
    assert [lines[::-1][i] for i in reading_order(lines[::-1])] == [lines[i] for i in reading_order(lines)]


def test_the_newer_message_has_the_greater_order():
    """Time decides, then platform and id."""
    assert message_order(strand(id="a", ts="2021-04-19T21:00:00Z")) > message_order(strand(id="z"))
    assert message_order(strand(id="b")) > message_order(strand(id="a"))
    assert message_order(strand(id="a", platform="x")) > message_order(strand(id="b", platform="a"))


def test_a_message_is_no_newer_than_when_it_was_heard():
    """A date ahead counts as the moment it was heard: what is heard later is newer, what was heard before is older."""
    ahead = strand(HEARD, id="ahead", ts="2021-04-20T20:00:00Z")
    later = strand(HEARD + 2 * HOUR, id="later", ts="2021-04-20T01:00:00Z")
    assert ahead.ts_event > later.ts_event
    assert message_order(later) > message_order(ahead) > message_order(strand(HEARD, id="before"))


@pytest.mark.parametrize("ts", ["2042-01-02T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_message_years_ahead_or_as_old_as_can_be_is_taken(ts):
    """Clocks differ, simulated ones by years: it is no newer than what is heard after it."""
    odd, later = strand(HEARD, id="odd", ts=ts), strand(HEARD + HOUR, id="later", ts="2021-04-20T00:30:00Z")
    assert message_order(later) > message_order(odd)


@pytest.mark.parametrize("ts", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-01:00"])
def test_a_time_outside_the_calendar_is_refused(ts):
    """In UTC it lies in no year that can be written."""
    with pytest.raises(InputError, match="no time of the years 1 to 9999 in UTC"):
        parse_signal(line(ts=ts))


@pytest.mark.parametrize("who", [" ann", "ann ", "\tann\n"])
def test_blanks_around_a_curator_are_no_part_of_the_id(who):
    assert parse_signal(line(curator=who)).payload.curator == "ann"


def test_a_curator_of_blanks_is_refused():
    with pytest.raises(InputError, match="curator must be text"):
        parse_signal(line(curator="  "))


def test_recorded_signals_parse(real_data):
    """Every recorded line is readable, in order of time, and means the very token it names."""
    folder = real_data / "signals" / "binance_spot_1h_2021_2023"
    resolve = TableResolver(read_tokens(folder / "tokens.csv"), {"exchange"}).resolve
    lines = (folder / "signals.jsonl").read_text().splitlines()
    parsed = [parse_signal(text, resolve=resolve) for text in lines]
    times = [signal.ts for signal in parsed]
    assert len(times) > 1000
    assert times == sorted(times)
    assert [s.payload.symbol for s in parsed] == [json.loads(text)["token"]["symbol"] for text in lines]
    assert {s.payload.mapping_status for s in parsed} == {"resolved"}
    assert reading_order(lines[::-1]) == list(range(len(lines)))[::-1]
