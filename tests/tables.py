"""Trade tables for tests of the library, and an object that speaks the Arrow C stream and nothing else."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np

START = np.datetime64("2024-01-01T00:00", "us")


def trades(n: int, seed: int = 0, *, effect: float = 1.2, hours: float = 6.0) -> dict[str, Any]:
    """``n`` closed trades, one every ``hours``, each held for three hours; ``side=long`` is worth ``effect`` R more."""
    rng = np.random.default_rng(seed)
    opened = START + (np.arange(n) * hours * 3_600_000_000).astype("timedelta64[us]")
    side = rng.choice(["long", "short"], n)
    return {
        "trade_id": [f"t{i}" for i in range(n)],
        "opened_at": opened,
        "closed_at": opened + np.timedelta64(3, "h"),
        "rr": rng.normal(0.0, 1.0, n) + effect * (side == "long"),
        "side": side.tolist(),
        "bucket": rng.choice(["micro", "mid", "big"], n).tolist(),
    }


class ArrowOnly:
    """Whatever speaks the Arrow C stream: here columns, through DuckDB's."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = {name: np.asarray(values, dtype=None) for name, values in columns.items()}

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        connection = duckdb.connect()
        connection.register("held", self._columns)
        return connection.sql("SELECT * FROM held").__arrow_c_stream__(requested_schema)


def decoded(coded: Any) -> list[str | None]:
    """A coded column as its values."""
    return [None if code < 0 else coded.levels[code] for code in coded.codes.tolist()]
