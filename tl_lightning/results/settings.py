"""How a run read its samples and in which arithmetic it was tested, so that predictions are made alike."""

from dataclasses import dataclass
from typing import Any

from tl_lightning.backbones.engines import EngineChoice
from tl_lightning.core.class_path import resolve
from tl_lightning.core.precision import fast_precision, possible_precision
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.core.yaml_files import mapping_in, read_mapping
from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.errors import UserError

BATCH_SIZE = 32  # where no run says
DEFAULT = f"{ImageDataModule.__module__}.{ImageDataModule.__qualname__}"


@dataclass(frozen=True)
class Settings:
    """How a model is run over files.

    Attributes:
        precision: One of Lightning's, such as ``bf16-mixed``.
        batch_size: Samples per forward pass. Kernels may round otherwise for another number, by a last bit.
        engine: What runs the backbone.
        data: Reads files as the run's data module reads its own; images where that is of another make.
    """

    precision: str
    batch_size: int
    engine: EngineChoice = "auto"
    data: type[TransferDataModule] = ImageDataModule

    @classmethod
    def of(
        cls,
        folder: RunFolder,
        *,
        precision: str | None = None,
        batch_size: int | None = None,
        engine: EngineChoice | None = None,
    ) -> "Settings":
        """The settings of a run: what ``tl test`` takes from its checkpoint and its ``config.yaml``.

        Args:
            folder: The run's; it may have no configuration, as where a checkpoint was taken out of it.
            precision: What the checkpoint says that it was trained in; `None`, as in those of earlier versions, for
                that of the configuration, else the one that this machine does fast.
            batch_size: Samples per forward pass; `None` for the run's.
            engine: What runs the backbone; `None` for the run's.

        Raises:
            UserError: If the batch has no sample, or the data module's class cannot be imported.
        """
        file = folder.config
        content = read_mapping(file) if file.is_file() else {}
        trained = mapping_in(content, "trainer", file).get("precision")
        precision = possible_precision(precision or str(trained or fast_precision()))
        configured = mapping_in(content, "data", file)
        data = mapping_in(configured, "init_args", file)
        kind: Any = resolve(configured.get("class_path", DEFAULT), "data.class_path")
        own = data.get("micro_batch_size")
        size = batch_size if batch_size is not None else own if isinstance(own, int) else data.get("batch_size")
        size = BATCH_SIZE if size is None else size
        if size < 1:
            raise UserError(f"--batch_size is {size}; it must be 1 or more")
        ours = isinstance(kind, type) and issubclass(kind, TransferDataModule)
        runs = engine or content.get("engine") or "auto"
        return cls(precision, size, runs, kind if ours else ImageDataModule)
