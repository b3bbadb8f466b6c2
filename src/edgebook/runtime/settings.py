"""Settings: frozen, typed, one default each, unknown keys refused (trading.md 7). File < environment (``EDGEBOOK_*``)
< command line.

Learned numbers are never settings: they are data in ``learning_configs``.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from edgebook.domain.errors import InputError
from edgebook.domain.timeframe import TIMEFRAMES
from edgebook.ports import MAX_SLIPPAGE_BPS

#: Settings that change no result, and may tell of a machine what a report should not: paths, hosts, passwords.
MACHINE_FACTS = {
    "db",
    "port",
    "speed",
    "commit_every_strands",
    "curators",
    "venue_url",
    "live_books",
    "grace_seconds",
}
#: What an operator may change between two runs of one book: it only forbids buys, and each time the log says so.
_PROTECTIONS = {
    "daily_loss_stop",
    "drawdown_stop",
    "cooldown_hours",
    "loss_streak",
    "loss_streak_hours",
    "stop_buy",
}
#: How far from the middle an order may go, and which tokens may be bought, is the operator's to change between two
#: runs, too.
_EXECUTION = {"ladder_bps", "max_slippage_bps", "canary"}
#: Limits of a buy; they make another book.
_RISK = ("min_notional_usd", "cash_reserve", "max_exposure", "per_token", "participation", "fee_reserve_bps")
#: Settings of a later release: at their default they are not hashed, so that databases from before stay usable.
_LATER = {
    "neutral_channels",
    "tuning_method",
    "shadows",
    "dm_coefficients",
    "normalise_h",
    "fill_on",
    "failure_probability",
    "complete_partials",
    "appetite_model",
    "archive_days",
    "broker",
    "venue",
    "symbols",
    "max_active",
    "exposure_skew",
    "exposure_skew_alpha",
    *_RISK,
    "pool_only",
    "trade_mid_attempt",
    "episode_block",
    "disaster_stop_atr",
    "max_bars_in_attempt",
    "emergency_timeout_bars",
    *_EXECUTION,
    *_PROTECTIONS,
}
_Share = Annotated[float, Field(ge=0, lt=1)]
_Part = Annotated[float, Field(gt=0, le=1)]
_Bps = Annotated[float, Field(gt=0, lt=10_000)]
_Hours = Annotated[float, Field(ge=0, le=8_760)]


class Settings(BaseSettings):
    """How this machine runs edgebook. What changes results is hashed into ``settings_hash``; machine facts are not."""

    model_config = SettingsConfigDict(env_prefix="EDGEBOOK_", frozen=True, extra="forbid")

    db: str = Field(default="sqlite:///edgebook.db", repr=False)  # it may hold a password
    feed: str = "sim"
    seed: int = Field(default=1, ge=0)
    speed: float = Field(default=20_000.0, gt=0, allow_inf_nan=False)
    """Simulated seconds per second of wall time."""
    port: int = Field(default=0, ge=0, le=65535)
    timeframes: Annotated[tuple[str, ...], NoDecode] = ("1m", "15m", "1h", "4h")
    sim_tokens: int = Field(default=24, ge=3, le=24)
    starting_cash_usd: int = Field(default=100_000, gt=0)
    book: str = "main"
    curators: str = ""
    """Registry of curators, a TOML or JSON file; what it says enters the log, so its place is no part of a run."""
    learning_enabled: bool = True
    neutral_channels: Annotated[tuple[Literal["dm", "strength", "tuning"], ...], NoDecode] = ()
    """Channels of learning that may not act; what they learn is gathered and shown all the same."""
    tuning_method: Literal["marginal", "votes"] = "marginal"
    """How gates are learnt: from what the chances on either side of them were worth, or from votes of outcomes."""
    shadows: bool = True
    """Whether every chance, taken or not, is followed on paper of its own."""
    global_exit: bool = False
    """EMA20 and EMA30 below all slower EMAs end S1, S2 and S3 at once (engine.md 2; decisions 9)."""
    s1_policy: Literal["on_primer", "after_breakout"] = "on_primer"
    """When the first entry of an attempt may be bought: at once, or only after the price has been above EMA333."""
    first_dip: bool = True
    """Whether the first dip of a young S3 is bought (rule 9)."""
    normalise_h: bool = False
    """Whether appetite swings equally far on every timeframe (trading.md 3.2)."""
    appetite_model: Literal["driver", "flags", "phases"] = "driver"
    """What A and E follow from: driver states and flags, flags alone, or phases (trading.md 3.2)."""
    reclaim: bool = False
    """Whether a reclaim of EMA333 after an emergency exit is bought (rule 4; decisions 58)."""
    complete_partials: bool = True
    """Whether what a partial fill left is ordered on the next bar while the signal still holds (trading.md 4.3)."""
    pool_only: bool = False
    """Whether rule 8 buys in S3 without trim proceeds only when nothing is held (trading.md 3.4)."""
    trade_mid_attempt: bool = False
    """Whether an attempt whose start was not seen may be bought into (trading.md 2)."""
    episode_block: bool = False
    """Whether an attempt that was entered and lost bars entries in S1 and S2 until an S3 is seen (trading.md 3.4)."""
    disaster_stop_atr: float = Field(default=0.0, ge=0, le=100)
    """ATRs at entry below the average cost; a close below that ends the trade (trading.md 3.4). 0 is off."""
    max_bars_in_attempt: int = Field(default=0, ge=0)
    """Bars since the first fill after which a trade ends (trading.md 3.4); 0 is off."""
    emergency_timeout_bars: int = Field(default=0, ge=0)
    """Bars after an emergency exit after which the flat trade is closed (trading.md 4.4); 0 is never."""
    archive_days: float = Field(default=0.0, ge=0, le=36_500)
    """Days without a signal after which a flat position is archived; 0 is never."""
    dm_coefficients: Literal["off", "on", "all"] = "on"
    """Coefficients folded from closed trades that multiply allocations: none, those of curator and market cap, or those
    of all dimensions, with the split over timeframes (trading.md 1.6)."""
    daily_loss_stop: _Share = 0.0
    """Share of the book's value lost since 00:00 UTC that stops buys for the day; 0 is off."""
    drawdown_stop: _Share = 0.0
    """Share below the peak of the book's value that stops buys; 0 is off."""
    cooldown_hours: _Hours = 0.0
    """How long a token is not bought after a trade of it has closed at a loss; 0 is off."""
    loss_streak: int = Field(default=0, ge=0)
    """Losing trades in a row of one token, or under one pattern, that stop its buys; 0 is off."""
    loss_streak_hours: _Hours = 0.0
    """How long a streak of losses stops them, after the last one."""
    stop_buy: bool = False
    """Whether nothing is bought at all; exits go on."""
    min_notional_usd: float = Field(default=5.0, ge=0, le=1e12)
    """Smallest order, USD."""
    cash_reserve: _Share = 0.05
    """Share of the book's value that stays cash."""
    max_exposure: _Part = 1.0
    """Cost of all that is held, at most, as a share of the book's value."""
    per_token: _Part = 0.20
    """The same of one token, on all its timeframes."""
    participation: _Part = 0.05
    """Largest share of the USD traded on the decision bar that one order may take."""
    fee_reserve_bps: float = Field(default=30.0, ge=0, lt=10_000)
    """Cash that a buy keeps free for its fee, in basis points of it; no less than the venue charges."""
    max_active: int = Field(default=69, ge=1)
    """Positions with an open trade from which on a decision carries a warning; nothing is refused."""
    canary: Annotated[tuple[str, ...], NoDecode] = ()
    """Symbols or contracts that may be bought, for a first try with few of them; empty for all. Exits go on."""
    exposure_skew: bool = False
    """Whether a buy shrinks where the book holds much of its kind already (trading.md 3.6)."""
    exposure_skew_alpha: float = Field(default=0.5, ge=0, le=100)
    """How much more a close likeness counts there than a loose one; 0: the same."""
    max_slippage_bps: _Bps = MAX_SLIPPAGE_BPS
    """Slippage beyond which an order is not filled: paper refuses it, a venue is never asked for it."""
    fill_on: Literal["next_open", "close"] = "next_open"
    """Price of a paper fill: the open of the next bar, or the close of the bar it was decided on."""
    failure_probability: float = Field(default=0.0, ge=0, le=1)
    """Share of paper orders that the broker refuses, the same ones in every run."""
    broker: Literal["paper", "dry", "live"] = "paper"
    """Where orders go: the paper broker, or the venue: on paper against its order book, or for real money."""
    venue: str = "binance"
    """The exchange of a dry or live broker, by its ccxt name."""
    venue_url: str = ""
    """Another address of the venue's API (a test network); "" is its own."""
    live_books: Annotated[tuple[str, ...], NoDecode] = ()
    """Books that may trade for real money: the second switch beside ``broker = live``."""
    grace_seconds: float = Field(default=30.0, gt=0, le=3_600)
    """Time between the two look-ups that prove an unanswered order dead."""
    ladder_bps: Annotated[tuple[float, ...], NoDecode] = (100.0, 300.0, MAX_SLIPPAGE_BPS)
    """Farthest limit of an order from the middle of the book, by fruitless tries so far; see `ladder`."""
    symbols: Annotated[tuple[str, ...], NoDecode] = ()
    """What a ``ccxt:EXCHANGE`` feed follows, by the venue's own ids such as SOLUSDT."""
    commit_every_strands: int = Field(default=4_000, ge=1)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.tuning_method == "marginal" and not self.shadows:
            raise ValueError(
                "shadows is off and tuning_method is marginal, which learns from them; set tuning_method to votes"
            )
        if bool(self.loss_streak) != bool(self.loss_streak_hours):
            raise ValueError(
                f"loss_streak is {self.loss_streak} and loss_streak_hours is {self.loss_streak_hours:g}; "
                "set both above 0, or neither"
            )
        if 0 < self.drawdown_stop <= self.daily_loss_stop:
            raise ValueError(
                f"daily_loss_stop is {self.daily_loss_stop:g} and drawdown_stop is {self.drawdown_stop:g}; the daily "
                "stop must be the smaller one, or it can never be the first"
            )
        if 0 < self.max_bars_in_attempt <= self.emergency_timeout_bars:
            raise ValueError(
                f"emergency_timeout_bars is {self.emergency_timeout_bars} and max_bars_in_attempt is "
                f"{self.max_bars_in_attempt}; the timeout must be the smaller one, or it can never be the first"
            )
        return self

    @model_validator(mode="after")
    def _limits(self) -> Self:
        largest = self.starting_cash_usd * min(self.per_token, self.max_exposure, 1 - self.cash_reserve)
        if self.min_notional_usd > largest and self.model_fields_set & set(_RISK):
            raise ValueError(
                f"min_notional_usd is {self.min_notional_usd:g} and starting_cash_usd {self.starting_cash_usd}: "
                f"cash_reserve, max_exposure and per_token leave {largest:g} for an order; it must not be more"
            )
        if "ladder_bps" in self.model_fields_set and max(self.ladder_bps, default=0.0) > self.max_slippage_bps:
            raise ValueError(
                f"ladder_bps goes up to {max(self.ladder_bps):g} and max_slippage_bps is {self.max_slippage_bps:g}; "
                "no rung may be beyond it"
            )
        return self

    @model_validator(mode="after")
    def _real_venue(self) -> Self:
        if self.live_feed and "speed" in self.model_fields_set and self.speed != 1:
            raise ValueError(f"speed is {self.speed:g}; feed {self.feed} runs as fast as time does, leave speed out")
        if self.live_feed and not self.symbols:
            raise ValueError(f"feed {self.feed} needs symbols, the venue's ids such as --symbols SOLUSDT,WIFUSDT")
        if self.symbols and not self.live_feed:
            raise ValueError(f"symbols are for a ccxt feed; feed {self.feed} has its own")
        if self.broker != "paper" and self.feed != f"ccxt:{self.venue}":
            raise ValueError(
                f"broker is {self.broker} at {self.venue} and feed is {self.feed}; "
                f"orders there need its own bars: feed ccxt:{self.venue}"
            )
        if self.broker == "live" and self.book not in self.live_books:
            raise ValueError(
                f"broker is live, but book {self.book!r} is not in live_books "
                f"({', '.join(self.live_books) or 'empty'}); add it there too, or use broker dry"
            )
        return self

    @property
    def ladder(self) -> tuple[float, ...]:
        """``ladder_bps``, its default cut to ``max_slippage_bps``; what was given is never beyond it."""
        return tuple(min(rung, self.max_slippage_bps) for rung in self.ladder_bps)

    @property
    def live_feed(self) -> bool:
        """Whether bars come from an exchange as they happen."""
        return self.feed.startswith("ccxt:")

    @model_validator(mode="after")
    def _paper_only(self) -> Self:
        if self.broker != "paper" and self.fill_on != "next_open":
            raise ValueError(
                f"fill_on is {self.fill_on} and broker is {self.broker}; it is for broker paper alone, leave it out"
            )
        if self.broker != "paper" and self.failure_probability:
            raise ValueError(
                f"failure_probability is {self.failure_probability:g} and broker is {self.broker}; it is for broker "
                "paper alone, leave it out"
            )
        return self

    @field_validator("starting_cash_usd", mode="before")
    @classmethod
    def _money(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a whole number of USD above 0 is needed, such as 100000")
        return value

    @field_validator("book")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a name is needed, such as main")
        return value

    @field_validator("live_books", "symbols", "neutral_channels", "ladder_bps", "canary", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("timeframes", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("neutral_channels")
    @classmethod
    def _in_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))

    @field_validator("timeframes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for tf in value:
            if tf not in TIMEFRAMES:
                raise ValueError(f"timeframe {tf!r} is not one of {', '.join(TIMEFRAMES)}")
        if not value:
            raise ValueError("at least one timeframe is needed")
        return tuple(sorted(set(value), key=TIMEFRAMES.index))

    @property
    def settings_hash(self) -> str:
        """16 hex digits over everything that changes results (decisions 33)."""
        return self._hash(MACHINE_FACTS)

    @property
    def book_hash(self) -> str:
        """The same without what may change from one run of a book to the next: a database belongs to one of these."""
        return self._hash(MACHINE_FACTS | _PROTECTIONS | _EXECUTION)

    def _hash(self, without: set[str]) -> str:
        without = without | {name for name in _LATER if getattr(self, name) == type(self).model_fields[name].default}
        facts = {k: v for k, v in self.model_dump(mode="json").items() if k not in without}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def load_settings(file: Path | None = None, **given: Any) -> Settings:
    """Settings from a TOML file, the environment and ``given`` (None values are not given).

    Raises:
        InputError: names the setting, what was wrong and where.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"settings file {file}: {error}") from error
    values = {k: v for k, v in values.items() if f"EDGEBOOK_{k.upper()}" not in os.environ}
    values |= {k: v for k, v in given.items() if v is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InputError(f"settings: {first['msg'].removeprefix('Value error, ')}") from error
        where = ".".join(map(str, first["loc"])) or "settings"
        raise InputError(f"setting {where}: {first['msg']} (was {first.get('input')!r})") from error
