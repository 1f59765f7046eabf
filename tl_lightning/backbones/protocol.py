"""What a library of models has to offer to be a provider, and what some backbones can do beyond features."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from tl_lightning.backbones.backbone import Backbone
from tl_lightning.preprocess import Preprocess


class Provider(Protocol):
    """A module of this room that knows one library of models; `providers.PROVIDERS` has one for each prefix of names.

    Attributes:
        VALID_NAMES: How its backbones are named, for messages.
    """

    VALID_NAMES: str

    def preprocess_of(self, name: str, weights: str) -> Preprocess:
        """How inputs have to be prepared; see `providers.preprocess_of`."""

    def build(
        self,
        name: str,
        weights: str,
        *,
        preprocess: Preprocess | None,
        drop_path_rate: float,
        gradient_checkpointing: bool,
    ) -> Backbone:
        """Builds a backbone with its weights; see `providers.build_backbone`."""

    def weights_problem(self, name: str) -> str | None:
        """Why pretrained weights cannot be had here; see `providers.weights_problem`."""

    def load_source_model(self, name: str, weights: str) -> nn.Module:
        """The model as it was pretrained; see `providers.load_source_model`."""

    def source_classifier(self, model: nn.Module) -> nn.Linear | None:
        """The classifier that tells the classes of the pretraining apart; see `providers.source_classifier`."""


@runtime_checkable
class DenseBackbone(Protocol):
    """A backbone that can show where in its input something is: what detection and segmentation ask for."""

    def maps(self, *inputs: Tensor) -> list[Tensor]:
        """Maps of features, ``(N, C, H, W)`` each, from fine to coarse.

        Args:
            inputs: What the backbone's module takes.
        """
