"""What curators lately want of a token: five channels folded from mentions, and what they add to A and E (trading.md
1.4, 3.2).

Mentions are kept per token as they are recorded; scores are made when a tick asks, from their age at that moment and
the curators' scores at that moment. So there is no job that could be forgotten and nothing to recompute hourly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from edgebook.domain.book import Curator, Mention, TokenIntents
from edgebook.domain.decay import HOUR, decay
from edgebook.domain.errors import TradingError
from edgebook.domain.strands import SocialLowcap, Strand
from edgebook.domain.values import replace
from edgebook.market.appetite import Pair, intent_terms
from edgebook.trading.rules import INTENTS, IntentRules

#: Channel of each intent; an intent without one (a bare mention, neutral research) moves nothing.
CHANNELS: Mapping[str, str] = {
    "adding_to_position": "hi_buy",
    "new_discovery": "hi_buy",
    "research_positive": "med_buy",
    "comparison_highlighted": "med_buy",
    "other_positive": "med_buy",
    "profit_taking": "profit",
    "sell": "sell",
    "mock": "mock",
}


def evolve_intents(row: TokenIntents | None, strand: Strand) -> TokenIntents:
    """The token's row after the ``social_lowcap`` strand: the mention is added, those too old to count are dropped.

    A mention is as old as its message, but no younger than its recording: a message dated ahead counts from when it was
    heard. The same mentions give the same row in whatever order they come.

    Raises:
        TradingError: a strand of another kind.
    """
    said = strand.payload
    if not isinstance(said, SocialLowcap):
        raise TradingError(f"strand {strand.id} of kind {strand.kind} is no mention", stage="intents")
    row = row or TokenIntents(said.chain, said.contract, said.symbol)
    row = replace(row, total=row.total + 1)
    channel = CHANNELS.get(said.intent)
    if channel is None:
        return row
    heard = Mention(min(strand.ts_event, strand.ts_recorded), channel, said.curator, strand.id)
    newest = max(row.last_at, heard.ts)
    oldest = newest - INTENTS.horizon_hours * HOUR
    kept = sorted((m for m in (*row.mentions, heard) if m.ts >= oldest), key=lambda m: (m.ts, m.signal_id))
    return replace(row, last_at=newest, mentions=tuple(kept[-INTENTS.max_mentions :]))


def intent_scores(
    row: TokenIntents, curator: Callable[[str], Curator | None], now: int, rules: IntentRules = INTENTS
) -> dict[str, float]:
    """Score in [0, 1] of each channel somebody used: ``min(1, mean(w * d) * (1 + ln count) / 2)`` (trading.md 1.4).

    ``w`` is the curator's score now, ``d = 2^(-age/72 h)``; mentions with ``d < .01`` are dropped, and so are those of
    a curator who is disabled, inactive or suspended.

    Args:
        curator: row of a curator by id, None for nobody.
        now: microseconds UTC; mentions recorded later must not be in the row yet.
    """
    found: dict[str, list[float]] = {}
    for mention in row.mentions:
        age = decay((now - mention.ts) / HOUR, rules.half_life_hours)
        who = curator(mention.curator)
        if age >= rules.min_decay and who is not None and who.followed:
            found.setdefault(mention.channel, []).append(who.score * age)
    return {
        channel: min(1.0, math.fsum(parts) / len(parts) * (1.0 + math.log(len(parts))) / 2.0)
        for channel, parts in sorted(found.items())
    }


def intent_of(row: TokenIntents | None, curator: Callable[[str], Curator | None], now: int) -> Pair:
    """What a token's mentions add to (A, E) at ``now``, each within +-.40; (0, 0) where nobody spoke of it lately."""
    return intent_terms(intent_scores(row, curator, now)) if row is not None and row.mentions else (0.0, 0.0)
