"""One objective per kind of target."""

from tl_lightning.tasks.objectives.base import Objective, varies
from tl_lightning.tasks.objectives.multiclass import Multiclass
from tl_lightning.tasks.objectives.multilabel import Multilabel
from tl_lightning.tasks.objectives.ordinal import Ordinal, median_level
from tl_lightning.tasks.objectives.regression import Regression

__all__ = ["OBJECTIVES", "Multiclass", "Multilabel", "Objective", "Ordinal", "Regression", "median_level", "varies"]

OBJECTIVES: dict[str, type[Objective]] = {
    objective.problem_type: objective for objective in (Multiclass, Ordinal, Multilabel, Regression)
}
