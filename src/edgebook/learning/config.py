"""Every constant of learning, once, with its unit in its name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LearningConfig:
    """Constants of the learning side; defaults are the settled ones (decisions 12-19, 29, 50-53).

    ``*_nats`` are natural-log likelihood ratios; ``*_r`` are in R; ``*_hours`` hours; kappas are log-multiplier per R.
    """

    # statistics: how deep the lattice of scope subsets goes (learning.md 3)
    trade_depth_dims: int = 3
    tuning_depth_dims: int = 1
    baseline_pseudo_trades: float = 10.0

    # when a family is fitted again (decisions 18)
    refit_min_new: int = 5
    refit_min_new_share: float = 0.05

    # the fit (decisions 16, 52, 53)
    fit_min_observations: int = 20
    winsor_share: float = 0.01
    gate_on_nats: float = 1.35
    gate_off_nats: float = 0.5
    gate_beside_nats: float = 0.0
    market_gate_on_nats: float = 2.7
    market_gate_off_nats: float = 1.0
    market_gate_beside_nats: float = 1.0
    strong_nats: float = 4.0
    market_min_trades: int = 300
    market_min_episodes: int = 8
    market_agreement: float = 0.8
    market_neighbour_hours: float = 2.0
    market_neighbour_hours_at_most: float = 6.0
    level_min_observations: int = 5
    tau_prior_levels: float = 0.5
    cell_depth_dims: int = 3
    cell_min_trades: int = 5
    cell_min_family_trades: int = 60
    cell_gate_on_nats: float = 2.0
    cell_gate_off_nats: float = 0.75
    cell_next_nats: float = 1.0
    cell_prior_odds: float = 0.5
    cell_min_share: float = 0.03
    cells_per_effect: int = 8
    cell_effects_max: int = 25
    pair_min_family_trades: int = 150
    pair_prior_share: float = 0.25
    pair_looks: int = 3
    stationary_pseudo_columns: float = 30.0
    drift_pseudo_columns: float = 0.3
    drift_min_variance_ratio: float = 0.04
    rejected_rows: int = 12
    exit_min_observations: int = 20

    # effect to lever (decisions 12, 51)
    kappa_candidate_per_r: float = 1.0
    kappa_claimed_per_r: float = 2.0
    kappa_full_lfsr: float = 0.05
    kappa_family_nats: float = 3.0
    size_log_share: float = 0.75
    min_log_target: float = 0.002
    max_lessons_per_family: int = 500

    # claims (decisions 4)
    claim_alpha: float = 0.10
    confirm_chance: float = 0.8
    confirm_min_days: int = 5
    calibrate_min_trades: int = 1000
    overlap_same: float = 0.7
    stale_half_lives: float = 3.0

    # half-lives of evidence; applied at run time only (learning.md 5)
    pm_strength_half_life_hours: float = 720.0
    dm_alloc_half_life_hours: float = 1440.0
    pm_tuning_half_life_hours: float = 1080.0

    # tuning votes (learning.md 4; decisions 29)
    tuning_min_episodes: int = 10
    tuning_min_score: float = 0.05
    tuning_min_support: float = 5.0
    tuning_pseudo_votes: float = 5.0
    tuning_full_support: float = 25.0
    tuning_hurdle_pseudo_windows: float = 25.0
    tuning_design_effect: float = 2.0
    tuning_alpha: float = 0.10
    tuning_boundary_votes: float = 10.0
    tuning_method: str = "marginal"
    marginal_min_flipped: int = 10
    marginal_sd_r: float = 1.2
    marginal_boundary_chances: float = 100.0
    marginal_tests_per_gate: float = 3.0
    payoff_pseudo_windows: float = 10.0
    payoff_prior_win_r: float = 2.0
    payoff_prior_loss_r: float = 1.0

    def half_life_hours(self, lesson_type: str) -> float:
        """Default half-life of a lesson type's evidence.

        >>> LearningConfig().half_life_hours("dm_alloc")
        1440.0
        """
        return {
            "pm_strength": self.pm_strength_half_life_hours,
            "dm_alloc": self.dm_alloc_half_life_hours,
            "pm_tuning": self.pm_tuning_half_life_hours,
        }[lesson_type]

    def kappa(self, claimed: bool, lfsr: float = 1.0) -> float:
        """Log-multiplier per R: 2 once claimed; before that from 1 up to 2 with the certainty of the sign (amends
        decisions 51).

        >>> config = LearningConfig()
        >>> config.kappa(True), config.kappa(False, 0.2), config.kappa(False, 0.025), config.kappa(False, 0.0)
        (2.0, 1.0, 1.5, 2.0)
        """
        if claimed:
            return self.kappa_claimed_per_r
        sure = max(0.0, 1.0 - lfsr / self.kappa_full_lfsr)
        return self.kappa_candidate_per_r + (self.kappa_claimed_per_r - self.kappa_candidate_per_r) * sure


DEFAULT = LearningConfig()
