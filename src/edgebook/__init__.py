"""edgebook: a trading system that learns from its own closed trades, and says why.

Importing the package is cheap on purpose: nothing numeric and no database is loaded until it is used.

``learn(trades, dims=...)`` makes :class:`Overrides` of anyone's closed trades, ``Overrides.advise(contexts)`` makes
:class:`Levers` of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgebook.api import Levers, Overrides, learn

__all__ = ["Levers", "Overrides", "__version__", "learn"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The library's names, loaded when first asked for."""
    if name not in ("Levers", "Overrides", "learn"):
        raise AttributeError(f"module 'edgebook' has no attribute {name!r}")
    return getattr(import_module("edgebook.api"), name)
