"""The state machine S0-S4 (engine.md 2): which of the trend's states a bar is in, from EMAs and the close alone.

S0 downtrend, S1 primer, S2 defensive, S3 full trend, S4 no state yet (watch only). Exactly one transition test per bar,
from the previous bar's state; no chaining, no persistence counters.
"""

from __future__ import annotations

from edgebook.kernels import kernel

#: Names of the state codes 0..4.
STATE_NAMES: tuple[str, ...] = ("S0", "S1", "S2", "S3", "S4")
S0, S1, S2, S3, S4 = 0, 1, 2, 3, 4

#: Codes of `edgebook.domain.reading.EXIT_REASONS`.
NO_EXIT, EXIT_BEARISH_ORDER, EXIT_ALL_BELOW, EXIT_FAST_BOTTOM = 0, 1, 2, 3


@kernel
def order_flags(
    e20: float, e30: float, e60: float, e144: float, e250: float, e333: float
) -> tuple[bool, bool, bool, bool, bool]:
    """Order predicates, all strict: (fast_up, s0_order, s3_order, all_below_333, fast_bottom)."""
    fast_up = e20 > e60 and e30 > e60
    fast_down = e20 < e60 and e30 < e60
    s0_order = fast_down and e60 < e144 and e144 < e250 and e250 < e333
    s3_order = fast_up and e60 > e144 and e144 > e250 and e250 > e333
    all_below = e20 < e333 and e30 < e333 and e60 < e333 and e144 < e333 and e250 < e333
    slowest = min(min(e60, e144), min(e250, e333))
    return fast_up, s0_order, s3_order, all_below, e20 < slowest and e30 < slowest


@kernel
def next_state(
    state: int,
    price: float,
    e60: float,
    e333: float,
    order: tuple[bool, bool, bool, bool, bool],
    global_exit: bool,
    bootstrap_s3: bool,
) -> tuple[int, int]:
    """The state after this bar and the code of the exit reason (0: no exit). First hit of the table in engine.md 2
    wins.

    Args:
        state: code of the previous bar's state; S4 also stands for "none yet".
        order: `order_flags` of this bar.
        global_exit: let ``fast_bottom`` override S1, S2 and S3 (engine.md 2; off by default).
        bootstrap_s3: let S4 enter S3 at once on full order (for regime drivers only; off by default).
    """
    fast_up, s0_order, s3_order, all_below, fast_bottom = order
    if global_exit and fast_bottom and S1 <= state <= S3:
        return S0, EXIT_FAST_BOTTOM
    if state == S4:
        if s0_order:
            return S0, NO_EXIT
        return (S3, NO_EXIT) if bootstrap_s3 and s3_order else (S4, NO_EXIT)
    if state == S0 and fast_up and price > e60:
        return S1, NO_EXIT
    if state == S1:
        if s0_order:
            return S0, EXIT_BEARISH_ORDER
        if price > e333:
            return S2, NO_EXIT
    if state == S2:
        if price < e333:
            return S1, NO_EXIT
        if s3_order:
            return S3, NO_EXIT
    if state == S3 and all_below:
        return S0, EXIT_ALL_BELOW
    return state, NO_EXIT
