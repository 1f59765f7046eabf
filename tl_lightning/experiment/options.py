"""The options of an experiment beside those of model, data and trainer, and our defaults for Lightning's own."""

from typing import Any, Literal

from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser

from tl_lightning.backbones.engines import EngineChoice
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.finetuning.phases import PRESETS
from tl_lightning.tasks import ClassificationTask
from tl_lightning.training.checkpoints import BestCheckpoint
from tl_lightning.training.forgetting import Forgetting
from tl_lightning.training.global_batch import LrScaling


def add_options(parser: LightningArgumentParser) -> None:
    """Adds our keys and our defaults.

    Args:
        parser: The experiment's, which knows the model, the data and the trainer already.
    """
    parser.add_argument(
        "--run_dir", type=str | None, default=None, help="The run's folder; by default a new runs/<config>-<n>."
    )
    parser.add_argument(
        "--phases",
        type=str | list[dict[str, Any]],
        default="full",
        help=f"How to transfer: {', '.join(PRESETS)}, or a list of phases such as [{{epochs: 3, train: head}}].",
    )
    parser.add_argument(
        "--cache",
        type=Literal["off", "auto", "require"],
        default="auto",
        help="Compute what a phase freezes once and cache it: never, where it can be and pays, or else fail.",
    )
    parser.add_argument(
        "--engine",
        type=EngineChoice,
        default="auto",
        help="What runs stages that nothing trains: torch as it is (eager), openvino, inductor, or whatever pays; "
        "compiled ones are compared with eager first.",
    )
    parser.add_argument(
        "--global_batch",
        type=int | None,
        default=None,
        help="Images of a step over all processes, in the place of data.batch_size: the same on 1 GPU and on 8.",
    )
    parser.add_argument(
        "--lr_scaling",
        type=LrScaling,
        default="none",
        help="Scale the learning rates with the global batch over lr_scaling_batch: by its square root, which is "
        "for AdamW, in proportion, which is for SGD, or not at all.",
    )
    parser.add_argument(
        "--lr_scaling_batch",
        type=int | None,
        default=None,
        help="The batch, over all processes, that model.lr was set for.",
    )
    parser.add_argument(
        "--compile",
        type=bool | str,
        default=False,
        help="Compile the backbone for training with torch.compile, and say what it gains; or a backend's name.",
    )
    parser.add_argument(
        "--ema",
        type=float | Literal["auto"] | None,
        default=None,
        help="Validate and keep a running mean of the weights with this decay; auto fits it to the phase.",
    )
    parser.add_argument(
        "--soup", type=int, default=0, help="Try a greedy soup of the weights of so many best epochs; 0 for none."
    )
    parser.add_argument(
        "--wise_ft",
        type=bool | float,
        default=False,
        help="How far to go from the pretrained (0) to the fine-tuned weights (1); true lets validation choose.",
    )
    parser.add_argument(
        "--save_every",
        type=int | None,
        default=None,
        help="Also write last.ckpt every so many steps; without it, at the end of each epoch.",
    )
    parser.add_argument(
        "--test",
        type=bool,
        default=True,
        help="Score the final weights on the test split too; false where many runs are compared on validation.",
    )
    parser.add_argument(
        "--silence", type=str | list[str], default=[], help="Cautions that are not to be shown, such as input_size."
    )
    parser.add_class_arguments(Forgetting, "forgetting")
    parser.add_lightning_class_args(EarlyStopping, "early_stopping")
    parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
    parser.set_defaults(
        {
            "model": {"class_path": f"{ClassificationTask.__module__}.{ClassificationTask.__qualname__}"},
            "data": {"class_path": f"{ImageDataModule.__module__}.{ImageDataModule.__qualname__}"},
            "early_stopping.monitor": "auto",  # the task's own
            "early_stopping.patience": 10,
            "checkpoint.monitor": "auto",
            "checkpoint.filename": "best",
            "checkpoint.save_last": False,  # it copies the best; LastCheckpoint keeps the last
            "checkpoint.enable_version_counter": False,
            "checkpoint.auto_insert_metric_name": False,
        }
    )
