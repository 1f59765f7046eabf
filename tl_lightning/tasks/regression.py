"""One or more numbers per sample."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from tl_lightning.tasks.base import TARGET, HeadPlan, TransferTask
from tl_lightning.tasks.objectives import Objective, Regression


class RegressionTask(TransferTask):
    """Regression on a pretrained backbone: one or more numbers per sample; see `Regression`."""

    objective_class: ClassVar[type[Objective] | None] = Regression

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str],
        *,
        head_solver: Literal["ridge", "sgd"] = "ridge",
        loss: Literal["mse", "mae", "huber"] = "mse",
        extrapolate: bool = False,
        **shared: Any,  # noqa: ANN401 - the arguments of the base, which the command line shows by name
    ) -> None:
        """Builds the model.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0`` or ``timm/hf-hub:ORG/MODEL``.
            classes: Names of the numbers, in the order of the outputs; comes from the data.
            head_solver: How a linear head alone on cached features is fitted: ``ridge`` solves least squares, the
                strength of regularisation chosen by leaving one out; ``sgd`` trains by epochs.
            loss: ``mse`` (squared error), ``mae`` (absolute error) or ``huber`` (squared up to one deviation of the
                number, absolute beyond: outliers pull less).
            extrapolate: Whether predictions may lie outside the range of the training samples' numbers. A sample
                unlike any of them can otherwise get a number without any limit.
            **shared: See `TransferTask`.

        Raises:
            UserError: If a name, a weight file or a number is wrong.
        """
        objective = Regression(classes, solver=head_solver, loss=loss, extrapolate=extrapolate)
        super().__init__(backbone, classes, planned={TARGET: HeadPlan(objective)}, **shared)
