"""What is transferred: backbones, and where their weights come from.

Nothing here imports timm before a function is called, since that alone takes seconds.
"""

from tl_lightning.backbones.backbone import Backbone, build_backbone, preprocess_of
from tl_lightning.backbones.splitting import Split, split_backbone, stage_outputs
from tl_lightning.backbones.stages import Stage
from tl_lightning.backbones.timm_models import checkpoint_gradients
from tl_lightning.backbones.tracing import CannotSplit
from tl_lightning.backbones.weights import load_source_model, source_classifier

__all__ = [
    "Backbone",
    "CannotSplit",
    "Split",
    "Stage",
    "build_backbone",
    "checkpoint_gradients",
    "load_source_model",
    "preprocess_of",
    "source_classifier",
    "split_backbone",
    "stage_outputs",
]
