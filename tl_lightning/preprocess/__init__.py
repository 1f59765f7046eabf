"""How inputs are prepared for a backbone: plain data that comes from its weights and travels with every checkpoint."""

from tl_lightning.preprocess.image import ImagePreprocess
from tl_lightning.preprocess.protocol import Preprocess

KINDS: dict[str, type[Preprocess]] = {"image": ImagePreprocess}

__all__ = ["KINDS", "ImagePreprocess", "Preprocess"]
