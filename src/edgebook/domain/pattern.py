"""Pattern keys: what kind of decision a strand is about (learning.md 2; decisions 25).

A key is ``module=<pm|dm>|pattern_key=<family>.<state>.<motif>``. The action category stands beside it, never inside it.
One function makes both, and strand writing, episode logging and runtime matching all use that one function.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from edgebook.domain.errors import StrandError

ActionCategory = Literal["entry", "add", "trim", "exit", "allocation"]
CATEGORIES: tuple[ActionCategory, ...] = ("entry", "add", "trim", "exit", "allocation")
MODULES = ("pm", "dm")

_MOTIFS: dict[str, tuple[str, tuple[ActionCategory, ...]]] = {
    # motif: (family.state, or "" where the state is the market's own; the categories it may have)
    "exit": ("", ("exit",)),
    "panic_exit": ("S3", ("exit",)),
    "trim": ("", ("trim",)),
    "reclaimed_ema333": ("S3", ("entry", "add")),
    "buy_flag": ("", ("entry", "add")),
    "dx": ("S3", ("entry", "add")),
    "first_dip_buy": ("S3", ("entry", "add")),
    "allocation": ("allocation", ("allocation",)),
}


class Pattern(NamedTuple):
    """A canonical pattern key with its action category."""

    key: str
    category: ActionCategory

    @property
    def module(self) -> str:
        """``"pm"`` or ``"dm"``."""
        return self.key[len("module=") : self.key.index("|")]


def generate_canonical_pattern_key(module: str, state: str, motif: str, category: str) -> Pattern:
    """The one key of an action.

    Args:
        module: ``"pm"`` or ``"dm"``.
        state: engine state of the rule, ``"S0"``..``"S4"``; ignored for dm.
        motif: one of the motifs of decisions 25 (``buy_flag``, ``dx``, ``trim``, ``exit`` ...).
        category: ``entry``, ``add``, ``trim``, ``exit`` or ``allocation``.

    Raises:
        StrandError: unknown module, motif, state or a category the motif cannot have.

    >>> generate_canonical_pattern_key("pm", "S1", "buy_flag", "entry")
    Pattern(key='module=pm|pattern_key=uptrend.S1.buy_flag', category='entry')
    >>> generate_canonical_pattern_key("dm", "", "allocation", "allocation").key
    'module=dm|pattern_key=dm_pattern.allocation.allocation'
    """
    if module not in MODULES:
        raise StrandError(f"module must be one of {MODULES}, was {module!r}")
    if motif not in _MOTIFS:
        raise StrandError(f"motif must be one of {sorted(_MOTIFS)}, was {motif!r}")
    fixed, categories = _MOTIFS[motif]
    for allowed in categories:
        if allowed == category:
            break
    else:
        raise StrandError(f"motif {motif!r} takes category {' or '.join(categories)}, was {category!r}")
    if (module == "dm") != (motif == "allocation"):
        raise StrandError(f"motif {motif!r} does not belong to module {module!r}")
    if module == "dm":
        return Pattern("module=dm|pattern_key=dm_pattern.allocation.allocation", allowed)
    if state not in ("S0", "S1", "S2", "S3", "S4"):
        raise StrandError(f"state must be S0..S4, was {state!r}")
    return Pattern(f"module=pm|pattern_key=uptrend.{fixed or state}.{motif}", allowed)


DM_ALLOCATION = generate_canonical_pattern_key("dm", "", "allocation", "allocation")
S1_ENTRY = generate_canonical_pattern_key("pm", "S1", "buy_flag", "entry")
S3_RETEST = generate_canonical_pattern_key("pm", "S3", "dx", "add")
"""Keys that episodes and learned gates use (decisions 26): S1 gates under S1_ENTRY, S3 gates under S3_RETEST."""

EPISODE_PATTERN = {"s1_entry": S1_ENTRY, "s3_retest": S3_RETEST}
