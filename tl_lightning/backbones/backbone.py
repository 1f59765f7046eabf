"""The backbone: from prepared inputs to features, knowing its own depth, width and preparation."""

from dataclasses import dataclass

from torch import nn

from tl_lightning.backbones.splitting import Split, split_backbone, stage_outputs
from tl_lightning.backbones.stages import Stage
from tl_lightning.preprocess import Preprocess


@dataclass(frozen=True, eq=False)
class Backbone:
    """What is transferred, and what it knows about itself; every provider hands back one, or a subclass.

    Attributes:
        module: Its inputs, each a tensor with a row per sample -> features (N, `num_features`), without any classifier.
            The names in its state dict are its library's own.
        num_features: The width of the features.
        stages: Depth-ordered, input to output; every parameter and buffer of `module` is in exactly one.
        preprocess: How its inputs have to be prepared.
        inputs: What `module` takes, in order, by the names that a batch has them under, such as ``image``. One whose
            name ends in ``mask`` says which positions count, where that matters.
        name: What it was asked for by, e.g. ``timm/tf_efficientnet_lite0``.
        weights: Where its weights were asked from, e.g. ``pretrained``.
        lineage: Where its weights came from, oldest first; empty for random ones.
        packages: Those on whose versions its features depend, besides torch.
        fixed_size: Whether it takes inputs of the one size only that it was built for.
    """

    module: nn.Module
    num_features: int
    stages: tuple[Stage, ...]
    preprocess: Preprocess
    inputs: tuple[str, ...]
    name: str
    weights: str
    lineage: tuple[str, ...]
    packages: tuple[str, ...]
    fixed_size: bool = False

    def split(self, cut: int) -> Split:
        """Cuts it between two stages, exactly; see `split_backbone`.

        Args:
            cut: How many stages are in the prefix, from 1 to all of them.

        Raises:
            CannotSplit: If it cannot be cut there.
        """
        return split_backbone(self.module, self.stages, cut, inputs=self.inputs)

    def stage_outputs(self) -> nn.Module:
        """Makes every depth visible in one forward pass; see `splitting.stage_outputs`.

        Raises:
            CannotSplit: If it cannot be traced.
        """
        return stage_outputs(self.module, self.stages, inputs=self.inputs)
