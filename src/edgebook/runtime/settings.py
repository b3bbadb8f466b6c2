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
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from edgebook.domain.errors import InputError
from edgebook.domain.timeframe import TIMEFRAMES

_NOT_HASHED = {"db", "port", "speed", "commit_every_strands"}


class Settings(BaseSettings):
    """How this machine runs edgebook. What changes results is hashed into ``settings_hash``; machine facts are not."""

    model_config = SettingsConfigDict(env_prefix="EDGEBOOK_", frozen=True, extra="forbid")

    db: str = "sqlite:///edgebook.db"
    feed: str = "sim"
    seed: int = Field(default=1, ge=0)
    speed: float = Field(default=20_000.0, gt=0)
    """Simulated seconds per second of wall time."""
    port: int = Field(default=0, ge=0, le=65535)
    timeframes: Annotated[tuple[str, ...], NoDecode] = ("1m", "15m", "1h", "4h")
    sim_tokens: int = Field(default=24, ge=3, le=24)
    starting_cash_usd: int = Field(default=100_000, gt=0)
    book: str = "main"
    learning_enabled: bool = True
    global_exit: bool = False
    """EMA20 and EMA30 below all slower EMAs end S1, S2 and S3 at once (engine.md 2; decisions 9)."""
    s1_policy: Literal["on_primer", "after_breakout"] = "on_primer"
    """When the first entry of an attempt may be bought: at once, or only after the price has been above EMA333."""
    first_dip: bool = True
    """Whether the first dip of a young S3 is bought (rule 9)."""
    reclaim: bool = False
    """Whether a reclaim of EMA333 after an emergency exit is bought (rule 4; decisions 58)."""
    commit_every_strands: int = Field(default=4_000, ge=1)

    @field_validator("timeframes", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

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
        facts = {k: v for k, v in self.model_dump(mode="json").items() if k not in _NOT_HASHED}
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
        where = ".".join(map(str, first["loc"])) or "settings"
        raise InputError(f"setting {where}: {first['msg']} (was {first.get('input')!r})") from error
