"""Raw social signals: one JSON object per line, checked field by field, to ``social_lowcap`` (trading.md 1.2-1.4;
decisions 40).

This is the one schema of every way in: a recorded file, the loopback ingress, ``edgebook inject``, a feed.

| field | what |
|---|---|
| ``id`` or ``message_id`` | id of the message on its platform; text |
| ``platform`` | where it was posted, small letters; default ``jsonl`` |
| ``ts`` | when, ISO 8601 with a time zone; one that lies ahead counts as of when it is heard |
| ``curator`` | who: an id of the registry, in small or capital letters, or ``platform:handle`` |
| ``token`` | ``symbol``, ``ticker``, ``contract``, ``chain``: one of the first three; without a token table the first |
| ``intent`` | what the message wants (trading.md 1.4); ``mocking_negative`` is ``mock``, ``sell_call`` is ``sell`` |
| ``mapping_confidence`` | how sure the sender is of the token, from 0 to 1 |
| ``allocation_multiplier`` | how strongly the intent is meant, from 1 to 2; may be missing |
| ``market`` | ``mcap_usd``, ``vol24h_usd``, ``liquidity_usd``, ``age_days``; each may be missing |
| ``text`` | the message; may be missing |

A message is told once per (platform, message id, contract), however often it is delivered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from edgebook.domain.errors import InputError
from edgebook.domain.ids import stable_id
from edgebook.domain.mentions import TokenMatch, TokenMention, curator_address
from edgebook.domain.strands import SocialLowcap, Strand
from edgebook.domain.values import replace
from edgebook.trading.rules import BUY_INTENTS

Resolve = Callable[[TokenMention], TokenMatch]
PLATFORM = "jsonl"
CHAIN = "exchange"
#: Names of intents in the JSONL that differ from ours.
INTENT_NAMES = {"mocking_negative": "mock", "sell_call": "sell"}
ACCEPTED, KNOWN, REFUSED = "accepted", "known", "refused"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = 1_000_000
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class ParsedSignal:
    """A checked signal and its moment, microseconds UTC."""

    ts: int
    payload: SocialLowcap

    def by(self, curator: str) -> ParsedSignal:
        """The same signal under the registry's id of who gave it."""
        return ParsedSignal(self.ts, replace(self.payload, curator=curator))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivered line: ``accepted``, ``known`` (delivered before) or ``refused``, with the reason."""

    status: str
    reason: str = ""


def parse_signal(line: str, *, resolve: Resolve | None = None, where: str = "signal") -> ParsedSignal:
    """Read one JSONL line.

    Args:
        resolve: finds the one token a message means, or raises InputError; None takes the message at its word.
        where: what to call the line in errors, e.g. ``"signals.jsonl:7"``.

    Raises:
        InputError: not a JSON object, a field missing or of the wrong kind, a time without zone, a token that cannot be
            told; one line naming ``where`` and the field.

    >>> line = '{"id": "s1", "ts": "2021-04-18T21:00:00Z", "curator": "ann", "token": {"symbol": "KEYUSDT"},'
    >>> parsed = parse_signal(line + ' "intent": "new_discovery", "mapping_confidence": 0.95}')
    >>> parsed.ts, parsed.payload.mapping_confidence, parsed.payload.chain
    (1618779600000000, 'high', 'exchange')
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); one JSON object per line is needed", stage="ingest") from None
    if not isinstance(data, dict):
        raise InputError(f"{where}: one JSON object per line is needed, was {type(data).__name__}", stage="ingest")
    mention = _mention(_object(data, "token", where, required=True), where, symbol_needed=resolve is None)
    market = _object(data, "market", where)
    intent = _text(data, "intent", where)
    who = _curator(data, where)
    token = _token(mention, resolve, where)
    payload = SocialLowcap(
        signal_id=_message_id(data, where),
        platform=_text(data, "platform", where, default=PLATFORM).strip().lower() or PLATFORM,
        curator=who,
        symbol=token.symbol,
        ticker=token.ticker,
        chain=token.chain,
        contract=token.contract,
        intent=INTENT_NAMES.get(intent, intent),
        mapping_confidence=_grade(_number(data, "mapping_confidence", where, upper=1.0), where),
        mcap_usd=_number(market, "mcap_usd", where, "market.mcap_usd"),
        vol24h_usd=_number(market, "vol24h_usd", where, "market.vol24h_usd"),
        liquidity_usd=_number(market, "liquidity_usd", where, "market.liquidity_usd"),
        age_days=_number(market, "age_days", where, "market.age_days"),
        text=_text(data, "text", where, default=""),
        handle=who,
        mapping_reason=token.mapping_reason,
        mapping_status=token.mapping_status,
        allocation_multiplier=_number(data, "allocation_multiplier", where, lower=1.0, upper=2.0),
    )
    return ParsedSignal(_moment(_text(data, "ts", where), where), payload)


def signal_strand(signal: ParsedSignal, now: int, regime_snapshot_id: str = "") -> Strand:
    """The ``social_lowcap`` strand: one per (platform, message, contract), however often it is delivered.

    Every mention becomes one; the tag ``dm_candidate`` is for those that ask for a buy of a token on a supported chain.

    Args:
        now: when it is heard, microseconds UTC; a message dated later counts as of then (`message_order`).
    """
    said = signal.payload
    strand_id = stable_id("social_lowcap", said.platform, said.signal_id, said.contract)
    candidate = said.intent in BUY_INTENTS and said.mapping_status != "chain_unresolved"
    return Strand(
        id=strand_id,
        payload=said,
        ts_event=signal.ts,
        ts_recorded=now,
        module="dm",
        symbol=said.symbol,
        correlation_id=strand_id,
        regime_snapshot_id=regime_snapshot_id,
        tags=("curated", "social_signal", *(("dm_candidate",) if candidate else ())),
    )


# ---------------------------------------------------------------- order and once


def message_order(signal: Strand) -> tuple[int, str, str, str]:
    """Which of two signals is the newer message: time, then platform, message id and contract (decisions 34).

    Its time is when it was posted, and no later than when it was heard: a date ahead of that is a mistake.
    """
    said = signal.payload
    assert isinstance(said, SocialLowcap)
    return min(signal.ts_event, signal.ts_recorded), said.platform, said.signal_id, said.contract


def reading_order(lines: Sequence[str]) -> list[int]:
    """Indices of ``lines`` in the order they are to be ingested: messages by time, platform, id and contract,
    unreadable lines last, equals as they were given.

    So one delivery leads to one log, however its lines are shuffled or repeated.

    >>> line = '{"id": "%s", "ts": "2021-04-18T21:00:00Z", "curator": "ann", "token": {"symbol": "KEYUSDT"},'
    >>> line += ' "intent": "new_discovery", "mapping_confidence": 0.95}'
    >>> reading_order(["{oops", line % "b", line % "a"])
    [2, 1, 0]
    """
    return sorted(range(len(lines)), key=lambda i: _line_order(lines[i]))


def _line_order(line: str) -> tuple[bool, int, str, str, str]:
    try:
        parsed = parse_signal(line, resolve=_as_said)
    except InputError:
        return True, 0, "", "", ""
    said = parsed.payload
    return False, parsed.ts, said.platform, said.signal_id, said.contract


def _as_said(mention: TokenMention) -> TokenMatch:
    return TokenMatch(mention.symbol, mention.ticker, mention.chain, mention.contract or mention.symbol)


def receive(stored: Strand | None, fresh: Strand) -> Receipt:
    """What a delivery is, given the strand of the same (platform, message id, contract) that is stored, if any.

    Only what the message itself says is compared, not what registry and token table made of it.
    """
    if stored is None:
        return Receipt(ACCEPTED)
    old, new = _stated(stored), _stated(fresh)
    changed = [name for name in old if old[name] != new[name]]
    if not changed:
        return Receipt(KNOWN)
    facts = "; ".join(f"{name} was {_short(old[name])}, is {_short(new[name])}" for name in changed)
    said = fresh.payload
    assert isinstance(said, SocialLowcap)
    return Receipt(
        REFUSED,
        f"signal: message {said.signal_id!r} of platform {said.platform} about {said.contract} was delivered before "
        f"with other content ({facts}); the first stays, a correction needs an id of its own",
    )


def _stated(strand: Strand) -> dict[str, Any]:
    said = strand.payload
    assert isinstance(said, SocialLowcap)
    plain = replace(said, handle=said.handle or said.curator, curator="", mapping_reason="", mapping_status="")
    return {"ts": strand.ts_event, **{field.name: getattr(plain, field.name) for field in fields(plain)}}


def _written(ts: int) -> str:
    """A moment of the years 1 to 9999 as text, to the second."""
    return f"{_EPOCH + timedelta(microseconds=ts):%Y-%m-%dT%H:%M:%SZ}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


# ---------------------------------------------------------------- fields


def _mention(token: Mapping[str, Any], where: str, *, symbol_needed: bool) -> TokenMention:
    names = ("symbol", "ticker", "contract", "chain")
    said = {name: _text(token, name, where, f"token.{name}", "") for name in names}
    if not said["symbol"] and (symbol_needed or not (said["ticker"] or said["contract"])):
        also = "" if symbol_needed else "; token.ticker or token.contract will do as well"
        raise InputError(f"{where}: token.symbol must be text, was {token.get('symbol')!r}{also}", stage="ingest")
    if "|" in said["chain"]:
        raise InputError(
            f"{where}: token.chain {_short(said['chain'])} holds a |, which no chain's name does", stage="ingest"
        )
    return TokenMention(**said)


def _token(mention: TokenMention, resolve: Resolve | None, where: str) -> TokenMatch:
    if resolve is None:
        symbol = mention.symbol
        return TokenMatch(symbol, mention.ticker or symbol, mention.chain or CHAIN, mention.contract or symbol)
    try:
        return resolve(mention)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", stage="ingest") from None


def _curator(data: Mapping[str, Any], where: str) -> str:
    """Who gave the signal, without blanks around it."""
    who = curator_address(_text(data, "curator", where)).strip()
    if not who:
        raise InputError(f"{where}: curator must be text, was {_short(data['curator'])}", stage="ingest")
    return who


def _message_id(data: Mapping[str, Any], where: str) -> str:
    """``id``, or ``message_id`` where that is how the sender calls it."""
    if "message_id" not in data:
        return _text(data, "id", where)
    found = _text(data, "message_id", where)
    if "id" in data and data["id"] != found:
        raise InputError(
            f"{where}: id {data['id']!r} and message_id {found!r} name the same thing and differ; give one of them",
            stage="ingest",
        )
    return found


def _object(data: Mapping[str, Any], name: str, where: str, required: bool = False) -> Mapping[str, Any]:
    value = data.get(name)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: {name} must be an object, was {_short(value)}", stage="ingest")
    return value


def _text(data: Mapping[str, Any], name: str, where: str, label: str = "", default: str | None = None) -> str:
    value = data.get(name, default)
    if value is None or not isinstance(value, str) or (not value and default is None):
        raise InputError(f"{where}: {label or name} must be text, was {_short(value)}", stage="ingest")
    if "\x00" in value:
        raise InputError(f"{where}: {label or name} holds a NUL character", stage="ingest")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise InputError(f"{where}: {label or name} holds half of a surrogate pair, which is no text", stage="ingest")
    return value


def _number(
    data: Mapping[str, Any], name: str, where: str, label: str = "", lower: float = 0.0, upper: float = math.inf
) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    try:
        value = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    except OverflowError:
        value = math.inf
    number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isinf(value)
    if not number or not lower <= value <= upper:
        limit = f"from {lower:g} to {upper:g}" if upper < math.inf else f"{lower:g} or more"
        raise InputError(f"{where}: {label or name} must be a number, {limit}, was {_short(value)}", stage="ingest")
    return float(value)


def _grade(confidence: float | None, where: str) -> str:
    if confidence is None:
        raise InputError(f"{where}: mapping_confidence must be a number, from 0 to 1, was None", stage="ingest")
    return "high" if confidence >= 0.9 else "medium" if confidence >= 0.7 else "low"


def _moment(text: str, where: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{where}: ts must be a time such as 2021-04-18T21:00:00Z, was {_short(text)}", stage="ingest"
        ) from None
    if moment.tzinfo is None:
        raise InputError(f"{where}: ts {text!r} has no time zone; write it in UTC, ending in Z", stage="ingest")
    try:
        since = moment.astimezone(UTC) - _EPOCH
    except OverflowError:
        raise InputError(f"{where}: ts {text!r} is no time of the years 1 to 9999 in UTC", stage="ingest") from None
    return (since.days * 86_400 + since.seconds) * _MICROSECOND + since.microseconds
