"""Turning a table of runs into a law with an interval, and using it."""

from minitransformer.laws.fit import fit
from minitransformer.laws.forms import FORMS, Form, form
from minitransformer.laws.law import Estimate, HoldOut, Law, Points, Prediction
from minitransformer.laws.plan import Allocation, allocate, best_for, kaplan_rules, predict
from minitransformer.laws.named import PUBLISHED, published, read_law
from minitransformer.laws.table import fit_table, read_table

__all__ = ["FORMS", "PUBLISHED", "Allocation", "Estimate", "Form", "HoldOut", "Law", "Points", "Prediction", "allocate", "best_for", "fit",
           "fit_table", "form", "kaplan_rules", "predict", "published", "read_law", "read_table"]
