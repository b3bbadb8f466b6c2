"""The trading tests' world, loaded by path so that it needs no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    name = "edgebook_trading_world"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("world.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def w() -> ModuleType:
    """Factories and the `World` of the trading tests."""
    return _load()


@pytest.fixture
def world(w):
    """A fresh world: one watched position in S0, no holdout, nothing learned."""
    return w.World()
