"""edgebook: a trading system that learns from its own closed trades, and says why.

Importing the package is cheap on purpose: nothing numeric and no database is loaded until it is used.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
