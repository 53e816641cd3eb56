"""Turning a table of runs into a law with an interval, and using it."""

from minitransformer.laws.fit import Estimate, HoldOut, Law, Points, Prediction, fit
from minitransformer.laws.forms import FORMS, Form, form
from minitransformer.laws.published import PUBLISHED, published, read_law

__all__ = ["FORMS", "PUBLISHED", "Estimate", "Form", "HoldOut", "Law", "Points", "Prediction", "fit", "form", "published", "read_law"]
