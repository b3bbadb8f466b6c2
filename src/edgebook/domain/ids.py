"""Deterministic ids: the same fact has the same id in every run, on every machine."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("6ed9e1c5-0d5f-5c0b-9a58-2f2c8f1f5b1e")


def stable_id(*parts: str | int) -> str:
    """UUID version 5 of the natural key ``parts`` (architecture law 3: ids are functions of facts).

    >>> stable_id("position", "x") == stable_id("position", "x")
    True
    >>> stable_id("a", "bc") == stable_id("ab", "c")
    False
    """
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(map(str, parts))))


def hash_share(text: str, salt: str) -> float:
    """A number in [0, 1) that depends on ``text`` and ``salt`` only; used for stable holdouts (decisions 6 and 46).

    >>> 0 <= hash_share("decision-1", "dm") < 1
    True
    """
    return (uuid.uuid5(_NAMESPACE, f"{salt}\x1f{text}").int >> 75) / float(1 << 53)
