"""One of several levels that have an order, such as grades of a disease."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from tl_lightning.tasks.base import TARGET, HeadPlan, TransferTask
from tl_lightning.tasks.objectives import Objective, Ordinal


class OrdinalTask(TransferTask):
    """Ordered levels on a pretrained backbone; see `Ordinal`."""

    objective_class: ClassVar[type[Objective] | None] = Ordinal

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str],
        *,
        head_solver: Literal["lbfgs", "sgd"] = "lbfgs",
        **shared: Any,  # noqa: ANN401 - the arguments of the base, which the command line shows by name
    ) -> None:
        """Builds the model.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0`` or ``timm/hf-hub:ORG/MODEL``.
            classes: Names of the levels, from the lowest to the highest; comes from the data.
            head_solver: How a linear head alone on cached features is fitted: ``lbfgs`` solves logistic regressions for
                a path of regularisation strengths, of which validation chooses; ``sgd`` trains by epochs.
            **shared: See `TransferTask`.

        Raises:
            UserError: If a name, a weight file or a number is wrong.
        """
        super().__init__(backbone, classes, planned={TARGET: HeadPlan(Ordinal(classes, solver=head_solver))}, **shared)
