"""Turning a table of runs into a law with an interval."""

from minitransformer.laws.fit import Estimate, HoldOut, Law, Points, Prediction, fit_power_law

__all__ = ["Estimate", "HoldOut", "Law", "Points", "Prediction", "fit_power_law"]
