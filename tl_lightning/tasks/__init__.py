"""What is learned: one LightningModule per kind of target and one for several targets, all on the same base."""

from tl_lightning.tasks.base import TransferTask
from tl_lightning.tasks.classification import ClassificationTask
from tl_lightning.tasks.multi_label import MultiLabelTask
from tl_lightning.tasks.multi_task import MultiTask
from tl_lightning.tasks.ordinal import OrdinalTask
from tl_lightning.tasks.regression import RegressionTask

__all__ = [
    "TASKS",
    "ClassificationTask",
    "MultiLabelTask",
    "MultiTask",
    "OrdinalTask",
    "RegressionTask",
    "TransferTask",
]

TASKS: tuple[type[TransferTask], ...] = (ClassificationTask, OrdinalTask, MultiLabelTask, RegressionTask, MultiTask)
