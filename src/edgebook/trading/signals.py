"""Raw social signals: one JSON object per line, checked field by field, to ``social_lowcap`` (trading.md 1.3; decisions
40)."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edgebook.domain.errors import InputError
from edgebook.domain.ids import stable_id
from edgebook.domain.strands import SocialLowcap, Strand

PLATFORM = "jsonl"
#: Names of intents in the JSONL that differ from ours.
INTENT_NAMES = {"mocking_negative": "mock"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class ParsedSignal:
    """A checked signal and its moment, microseconds UTC."""

    ts: int
    payload: SocialLowcap


def parse_signal(line: str, *, tokens: Container[str] | None = None, where: str = "signal") -> ParsedSignal:
    """Read one JSONL line.

    Args:
        tokens: known symbols; None accepts any.
        where: what to call the line in errors, e.g. ``"signals.jsonl:7"``.

    Raises:
        InputError: not a JSON object, a field missing or of the wrong kind, a time without zone, an unknown token; one
            line naming ``where`` and the field.

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
    token = _object(data, "token", where, required=True)
    market = _object(data, "market", where)
    symbol = _text(token, "symbol", where, "token.symbol")
    if tokens is not None and symbol not in tokens:
        raise InputError(f"{where}: token.symbol {symbol!r} is not a known token", stage="ingest")
    intent = _text(data, "intent", where)
    payload = SocialLowcap(
        signal_id=_text(data, "id", where),
        platform=PLATFORM,
        curator=_text(data, "curator", where),
        symbol=symbol,
        ticker=_text(token, "ticker", where, "token.ticker", symbol),
        chain=_text(token, "chain", where, "token.chain", "exchange"),
        contract=_text(token, "contract", where, "token.contract", symbol),
        intent=INTENT_NAMES.get(intent, intent),
        mapping_confidence=_grade(_number(data, "mapping_confidence", where, upper=1.0), where),
        mcap_usd=_number(market, "mcap_usd", where, "market.mcap_usd"),
        vol24h_usd=_number(market, "vol24h_usd", where, "market.vol24h_usd"),
        liquidity_usd=_number(market, "liquidity_usd", where, "market.liquidity_usd"),
        age_days=_number(market, "age_days", where, "market.age_days"),
        text=_text(data, "text", where, default=""),
    )
    return ParsedSignal(_moment(_text(data, "ts", where), where), payload)


def signal_strand(signal: ParsedSignal, now: int, regime_snapshot_id: str = "") -> Strand:
    """The ``social_lowcap`` strand: one per (platform, message, contract), however often it is delivered."""
    said = signal.payload
    strand_id = stable_id("social_lowcap", said.platform, said.signal_id, said.contract)
    return Strand(
        id=strand_id,
        payload=said,
        ts_event=signal.ts,
        ts_recorded=now,
        module="dm",
        symbol=said.symbol,
        correlation_id=strand_id,
        regime_snapshot_id=regime_snapshot_id,
        tags=("curated", "social_signal", "dm_candidate"),
    )


def _object(data: Mapping[str, Any], name: str, where: str, required: bool = False) -> Mapping[str, Any]:
    value = data.get(name)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: {name} must be an object, was {value!r}", stage="ingest")
    return value


def _text(data: Mapping[str, Any], name: str, where: str, label: str = "", default: str | None = None) -> str:
    value = data.get(name, default)
    if value is None or not isinstance(value, str) or (not value and default is None):
        raise InputError(f"{where}: {label or name} must be text, was {value!r}", stage="ingest")
    if "\x00" in value:
        raise InputError(f"{where}: {label or name} holds a NUL character", stage="ingest")
    return value


def _number(data: Mapping[str, Any], name: str, where: str, label: str = "", upper: float = math.inf) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    try:
        value = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    except OverflowError:
        value = math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= upper or math.isinf(value):
        limit = f"from 0 to {upper:g}" if upper < math.inf else "0 or more"
        raise InputError(f"{where}: {label or name} must be a number, {limit}, was {value!r}", stage="ingest")
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
            f"{where}: ts must be a time such as 2021-04-18T21:00:00Z, was {text!r}", stage="ingest"
        ) from None
    if moment.tzinfo is None:
        raise InputError(f"{where}: ts {text!r} has no time zone; write it in UTC, ending in Z", stage="ingest")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * _MICROSECOND + since.microseconds
