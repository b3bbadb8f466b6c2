"""What learning's names mean, in words for a trader: scopes, patterns, statuses, reasons, levers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANNEL_OF = {"dm_alloc": "dm", "pm_strength": "strength", "pm_tuning": "tuning"}
CHANNEL_NAMES = {"dm": "Allocation", "strength": "Pattern strength", "tuning": "Gates"}
CHANNEL_NOTES = {
    "dm": "how much of the book an approved signal gets",
    "strength": "how large and how eager an entry, an add or a trim is",
    "tuning": "how high the engine's thresholds for a buy stand",
}
LEVER_NAMES = {
    "alloc_mult": "allocation",
    "size_mult": "size",
    "entry_aggression_mult": "entry aggression",
    "exit_aggression_mult": "exit aggression",
}

_DIMS = {
    "curator": "curator {}",
    "chain": "chain {}",
    "mcap_bucket": "market cap {}",
    "vol_bucket": "24 h volume {}",
    "age_bucket": "token age {}",
    "intent": "intent {}",
    "mapping_confidence": "{} mapping confidence",
    "mcap_vol_ratio_bucket": "cap to volume {}",
    "macro_phase": "macro phase {}",
    "meso_phase": "meso phase {}",
    "micro_phase": "micro phase {}",
    "bucket_leader": "{} caps lead",
    "bucket_rank_position": "cap class ranked {}",
    "market_family": "family {}",
    "bucket": "{} caps",
    "timeframe": "{} bars",
    "A_mode": "{} entries",
    "E_mode": "{} exits",
}
_REASONS = {
    "claimed": "a finding: its evidence stands clear of chance, so it acts with full force",
    "not_claimed": "acts, the more the surer its sign is, but its evidence is not yet clear of chance",
    "sign_flipped": "its sign has just turned, so it starts again as a candidate",
    "centre": "gives back what the other lessons take from the family's mean, so that money moves and does not shrink",
    "no_variance": "no circumstance moves the outcome more than chance does",
    "too_few": "too few trades to fit",
    "market_wide_too_few": "the whole market shares this circumstance, and it came too few times to tell",
    "no_exit_outcome": "too few trims with a later sale to compare with",
    "no_lever": "full exits have no lever to learn",
    "below_min_effect": "its effect has shrunk to next to nothing",
    "nothing_left": "what was learnt here has shrunk or aged to next to nothing",
    "family_acts": "the family speaks now, so its note of silence is gone",
    "no_evidence": "nothing speaks for it any more",
    "no_clear_votes": "the windows' votes do not stand clear of chance",
    "too_few_episodes": "too few episodes to judge a gate by",
    "acts": "acts",
}
_STANDINGS = {
    "finding": "finding",
    "acts": "candidate, acts",
    "silent": "not believed",
    "deprecated": "given up",
    "dropped": "no longer told",
}


def scope_words(scope: Mapping[str, Any]) -> str:
    """A scope as a reader says it; ``everywhere`` for the root. A user's own dim keeps its name.

    >>> scope_words({"bucket": "micro", "timeframe": "1h"}), scope_words({"my_dim": "a"}), scope_words({})
    ('micro caps, 1h bars', 'my dim a', 'everywhere')
    """
    told = (_DIMS.get(dim, dim.replace("_", " ") + " {}").format(_value(value)) for dim, value in scope.items())
    return ", ".join(told) or "everywhere"


def _value(value: Any) -> str:
    return value.replace("_", " ") if isinstance(value, str) else str(value)


def pattern_words(pattern_key: str, category: str) -> str:
    """What kind of decision a family is about.

    >>> pattern_words("module=pm|pattern_key=uptrend.S1.buy_flag", "entry")
    'S1 buy flag, entry'
    >>> pattern_words("module=dm|pattern_key=dm_pattern.allocation.allocation", "allocation")
    'allocation of a decision'
    """
    if category == "allocation":
        return "allocation of a decision"
    name = pattern_key.rpartition("pattern_key=")[2].removeprefix("uptrend.").removeprefix("user.")
    return f"{name.replace('.', ' ').replace('_', ' ')}, {category}"


def reason_words(reason: str) -> str:
    """Why a lesson or family does or does not act; a reason without words is its own.

    >>> reason_words("no_variance"), reason_words("so_new")
    ('no circumstance moves the outcome more than chance does', 'so new')
    """
    return _REASONS.get(reason, reason.replace("_", " "))


def standing_words(standing: str) -> str:
    """The pill of a lesson.

    >>> standing_words("acts")
    'candidate, acts'
    """
    return _STANDINGS[standing]


def lever_name(lever: str) -> str:
    """A lever's name; gates keep the engine's own.

    >>> lever_name("size_mult"), lever_name("ts_min")
    ('size', 'ts_min')
    """
    return LEVER_NAMES.get(lever, lever)


def count(n: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> count(1, "finding"), count(2, "family", "families")
    ('1 finding', '2 families')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
