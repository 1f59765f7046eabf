"""What is transferred: backbones, and where their weights come from.

Nothing here imports timm before a function is called, since that alone takes seconds.
"""

from tl_lightning.backbones.backbone import Backbone
from tl_lightning.backbones.protocol import DenseBackbone, Provider
from tl_lightning.backbones.providers import (
    PROVIDERS,
    build_backbone,
    load_source_model,
    preprocess_of,
    source_classifier,
    weights_problem,
)
from tl_lightning.backbones.splitting import Split
from tl_lightning.backbones.stages import Stage
from tl_lightning.backbones.tracing import CannotSplit

__all__ = [
    "PROVIDERS",
    "Backbone",
    "CannotSplit",
    "DenseBackbone",
    "Provider",
    "Split",
    "Stage",
    "build_backbone",
    "load_source_model",
    "preprocess_of",
    "source_classifier",
    "weights_problem",
]
