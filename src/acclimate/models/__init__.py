"""Pure mathematics: posteriors and their updates, the joint fit, the population, scoring. No I/O, no clock."""

from acclimate.models.posterior import UpdateInfo, update_posterior, update_posteriors

__all__ = ["UpdateInfo", "update_posterior", "update_posteriors"]
