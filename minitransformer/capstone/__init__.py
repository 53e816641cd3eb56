"""The capstone: spend a compute budget on a ladder of trainings, then foretell what thirty times the budget would reach."""

from .challenge import ladder as ladder
from .forecast import Forecast as Forecast, Score as Score, score as score
from .service import Service as Service
