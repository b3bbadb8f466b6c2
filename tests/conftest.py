"""What every test may lean on: Hypothesis profiles and the recorded market data, when there is any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parents[1]

# ci: the same examples every time, so that a red gate is red again at the next run.
# explore: new examples each time, for an hour of looking; HYPOTHESIS_PROFILE=explore make test
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the repository."""
    return REPO


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The directory of recorded bars and signals: EDGEBOOK_DATA, else ../shared/data beside the repository.

    EDGEBOOK_DATA that names no directory is an error, not a skip: whoever sets it wants those tests to run.
    """
    named = os.environ.get("EDGEBOOK_DATA")
    if named is not None:
        path = Path(named)
        if not path.is_dir():
            pytest.fail(f"EDGEBOOK_DATA is {named!r}, which is no directory: name the one that holds the recorded bars")
        return path
    path = REPO.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no recorded market data: set EDGEBOOK_DATA to the directory that holds it")
    return path
