"""How inputs are prepared for a backbone: plain data that comes from its weights and travels with every checkpoint."""

from tl_lightning.preprocess.image import Preprocess

__all__ = ["Preprocess"]
