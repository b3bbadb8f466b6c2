"""What learning has changed: override records, which of them match, and the numbers they make, each with its
because.
"""

from __future__ import annotations

from edgebook.overrides.combine import (
    Applied,
    PlanControls,
    Strength,
    apply_allocation_overrides,
    apply_pattern_execution_overrides,
    apply_pattern_strength_overrides,
)
from edgebook.overrides.history import ConfigHistory
from edgebook.overrides.match import MatchIndex, weight
from edgebook.overrides.record import Override, Problem, dump_documents, parse_documents

__all__ = [
    "Applied",
    "ConfigHistory",
    "MatchIndex",
    "Override",
    "PlanControls",
    "Problem",
    "Strength",
    "apply_allocation_overrides",
    "apply_pattern_execution_overrides",
    "apply_pattern_strength_overrides",
    "dump_documents",
    "parse_documents",
    "weight",
]
