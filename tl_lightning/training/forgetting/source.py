"""The task that the weights were trained for before: their own head, and images of its classes."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tl_lightning.backbones import load_source_model
from tl_lightning.core.files import user_path
from tl_lightning.core.randomness import seeded
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.data.images.containers import look_into
from tl_lightning.data.images.store import ImageStore
from tl_lightning.data.samples import name_some
from tl_lightning.data.sources.folder import FOLDER, read_folder
from tl_lightning.errors import UserError, nearest, shown
from tl_lightning.preprocess.image import ImagePreprocess
from tl_lightning.tasks import ClassificationTask
from tl_lightning.tasks.loading import load_task

KEY = "forgetting.source"

Numbers = dict[str, int | None]  # of classes by all that they are called; `None` where several are called so


@dataclass(frozen=True)
class Source:
    """What the weights could do at the start.

    Attributes:
        head: Features ``(N, num_features)`` -> scores of the source classes, in eval mode on the CPU.
        store: The decoded images, prepared as the run prepares its own.
        labels: The number of each image's class among the head's outputs, ``int64`` ``(n,)``.
    """

    head: nn.Module
    store: ImageStore
    labels: Tensor

    def accuracy(self, features: Tensor) -> float:
        """The share of the images that the head gets right.

        Args:
            features: What the backbone makes of all images, ``(n, num_features)``.
        """
        with torch.no_grad():
            scores = self.head(features.to(next(self.head.parameters())))
        return float((scores.argmax(1) == self.labels).double().mean())


def open_source(folder: str, *, backbone: str, weights: str, num_features: int, preprocess: ImagePreprocess) -> Source:
    """Finds the head that belongs to some weights, and images of the classes that it tells apart.

    Random numbers that building a model takes are drawn aside.

    Args:
        folder: With one sub-folder per source class, ``FOLDER/CLASS/*.jpg``. Where it has ``train/`` and ``test/``
            above these, the test images count: a head knows what it was trained on. Classes of an earlier run go by
            their names; those of ImageNet by number (281), WordNet id (n02123045) or label (tabby).
        backbone: The backbone's name.
        weights: Where its weights come from.
        num_features: The width of its features.
        preprocess: The preparation in force.

    Raises:
        UserError: If the weights have no head on these features, or the folder is not what it has to be.
    """
    if not user_path(folder).is_dir():
        raise UserError(f"{KEY} is {folder!r}: there is no such folder; it needs one sub-folder per source class")
    with seeded(0):
        head, names, known = _head(backbone, weights, num_features)
    try:
        listing = read_folder(user_path(folder))
    except UserError as error:
        raise UserError(f"{KEY}: {str(error).removeprefix('data.source ')}") from error
    classes = {name: _number(name, names, known, folder) for name in dict.fromkeys(listing.targets[FOLDER])}
    rows = [row for row, split in enumerate(listing.split or []) if split == "test"] or range(len(listing.paths))
    contents = look_into([listing.paths[row] for row in rows], preprocess.frames)
    paths = [part for each in contents for part in each.parts]
    labels = [
        classes[listing.targets[FOLDER][row]] for row, each in zip(rows, contents, strict=True) for _ in each.parts
    ]
    store = ImageStore.open(paths, preprocess)
    if store.broken:
        named = name_some([f"{shown(paths[index])} ({reason})" for index, reason in store.broken.items()])
        raise UserError(f"{KEY}: {len(store.broken)} of {len(paths)} images cannot be read: {named}; mend them")
    return Source(head.eval(), store, torch.tensor(labels))


def _head(backbone: str, weights: str, num_features: int) -> tuple[nn.Module, Numbers, Collection[str]]:
    """The head, the numbers of its classes, and the names among which a wrong one may have its like."""
    run = RunFolder(user_path(weights))
    if (run.checkpoints / "best.ckpt").is_file():
        task = load_task(run.best_checkpoint)
        if not isinstance(task, ClassificationTask):
            raise UserError(f"{KEY}: the run {run.path} did not learn classes, so there is no accuracy to lose")
        names: Numbers = {name: number for number, name in enumerate(task.classes)}
        return task.head, names, task.classes
    model = load_source_model(backbone, weights)
    head = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    if not isinstance(head, nn.Linear) or head.in_features != num_features:
        raise UserError(
            f"{KEY}: the weights {weights} of {backbone} have no linear head on its {num_features:,} features, whose "
            "accuracy could be measured; leave it out"
        )
    return head, *_imagenet(head.out_features)


def _imagenet(outputs: int) -> tuple[Numbers, list[str]]:
    """What the classes of timm's weights are called; other numbers of classes than ImageNet's have only numbers."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    names: Numbers = {}
    subset = infer_imagenet_subset({"num_classes": outputs})
    if subset is not None:
        info = ImageNetInfo(subset)
        for number in range(outputs):
            label = _plain(info.index_to_description(number).partition(",")[0])
            names[label] = None if label in names else number  # there are two cranes: a bird and a machine
        names |= {info.index_to_label_name(number): number for number in range(outputs)}
    suggested = list(names)
    return names | {str(number): number for number in range(outputs)}, suggested


def _plain(label: str) -> str:
    return label.strip().lower().replace("_", " ")


def _number(name: str, names: Numbers, known: Collection[str], folder: str) -> int:
    key = name if name in names else _plain(name)
    if key not in names:
        raise UserError(f"{KEY}: the folder {name!r} in {folder} is no class of the source head{nearest(key, known)}")
    number = names[key]
    if number is None:
        raise UserError(f"{KEY}: the folder {name!r} in {folder} may be several classes of the source; use a number")
    return number
