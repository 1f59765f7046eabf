"""The data module under the name that the run folders of earlier versions know it by."""

from tl_lightning.data.images.module import ImageDataModule

__all__ = ["ImageDataModule"]
