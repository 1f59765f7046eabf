"""One class per sample, out of two or more."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from tl_lightning.tasks.base import TARGET, HeadPlan, TransferTask
from tl_lightning.tasks.objectives import Multiclass, Objective


class ClassificationTask(TransferTask):
    """A classifier on a pretrained backbone: softmax over two or more classes; see `Multiclass`."""

    objective_class: ClassVar[type[Objective] | None] = Multiclass

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str],
        *,
        head_solver: Literal["lbfgs", "ridge", "sgd"] = "lbfgs",
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        focal_gamma: float = 2.0,
        label_smoothing: float = 0.0,
        class_weights: Literal["none", "balanced", "effective"] = "none",
        effective_beta: float = 0.999,
        **shared: Any,  # noqa: ANN401 - the arguments of the base, which the command line shows by name
    ) -> None:
        """Builds the classifier.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0`` or ``timm/hf-hub:ORG/MODEL``.
            classes: Names of the classes, in the order of the labels; comes from the data.
            head_solver: How a linear head alone on cached features is fitted: ``lbfgs`` solves logistic regression for
                a path of regularisation strengths, of which validation chooses; ``ridge`` solves least squares, which
                streams any number of rows, the strength chosen by leaving one out; ``sgd`` trains by epochs.
            loss: ``cross_entropy``, or ``focal``, in which samples that the model is sure of count for less.
            focal_gamma: How much less they count, 0 (as cross-entropy) or more; matters with ``loss: focal``.
            label_smoothing: Share of the label spread over all classes, 0 to 1.
            class_weights: ``balanced`` weighs each class in the loss by the inverse of its frequency; ``effective`` by
                that of its effective number of samples, less steeply (Cui et al. 2019, arXiv:1901.05555).
            effective_beta: 0 up to 1, where ``effective`` becomes ``balanced``: with 0.999, samples beyond a few
                thousand of a class hardly count any more.
            **shared: See `TransferTask`.

        Raises:
            UserError: If a name, a weight file or a number is wrong.
        """
        objective = Multiclass(
            classes,
            solver=head_solver,
            loss=loss,
            focal_gamma=focal_gamma,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            effective_beta=effective_beta,
        )
        super().__init__(backbone, classes, planned={TARGET: HeadPlan(objective)}, **shared)
