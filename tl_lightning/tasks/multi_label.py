"""Any number of labels per sample."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from tl_lightning.tasks.base import TARGET, HeadPlan, TransferTask
from tl_lightning.tasks.objectives import Multilabel, Objective


class MultiLabelTask(TransferTask):
    """A classifier whose samples have none, one or several of some labels; see `Multilabel`."""

    objective_class: ClassVar[type[Objective] | None] = Multilabel

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str],
        *,
        head_solver: Literal["ridge", "sgd"] = "ridge",
        class_weights: Literal["none", "balanced"] = "none",
        **shared: Any,  # noqa: ANN401 - the arguments of the base, which the command line shows by name
    ) -> None:
        """Builds the classifier.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0`` or ``timm/hf-hub:ORG/MODEL``.
            classes: Names of the labels, in the order of the outputs; comes from the data.
            head_solver: How a linear head alone on cached features is fitted: ``ridge`` solves least squares, strength
                and scale chosen by leaving one out; ``sgd`` trains by epochs.
            class_weights: ``balanced`` weighs the samples that have a label as much as those that have it not.
            **shared: See `TransferTask`.

        Raises:
            UserError: If a name, a weight file or a number is wrong.
        """
        objective = Multilabel(classes, solver=head_solver, class_weights=class_weights)
        super().__init__(backbone, classes, planned={TARGET: HeadPlan(objective)}, **shared)
