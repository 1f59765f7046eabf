"""Looking at the images, the backbone and the machine, before anything is advised."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tl_lightning.backbones import preprocess_of
from tl_lightning.backbones.macs import count_macs
from tl_lightning.choosing.advising.decision import NOISE
from tl_lightning.choosing.advising.facts import Facts, Images, Machine, Model
from tl_lightning.choosing.advising.own_settings import given_keys
from tl_lightning.choosing.advising.probing import TopScores, probe_depth, probe_facts, probe_top, probed_images
from tl_lightning.choosing.advising.rules import image_size
from tl_lightning.choosing.advising.similarity import measure_similarity
from tl_lightning.core.console import console
from tl_lightning.core.private import BatchNorm
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.workers import usable_cores
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.preamble import assemble, read_data
from tl_lightning.inspecting.show_data.image_sizes import read_headers
from tl_lightning.preprocess import ImagePreprocess
from tl_lightning.tasks.objectives import OBJECTIVES

HEADERS = 200  # files whose size is looked at


def image_facts(data: ImageDataModule) -> Images:
    """Counts, and looks at the size of some files.

    Args:
        data: The splits count; test images are counted only.
    """
    samples, splits = data.samples, data.splits
    counts = samples.counts(splits["train"])
    counts = counts[counts > 0]
    drawn = np.random.default_rng(0).permutation(splits["train"])[:HEADERS]
    headers = [header for header in read_headers([samples.paths[row] for row in drawn]) if header is not None]
    return Images(
        problem_type=samples.problem_type,
        classes=len(data.classes),
        training=len(splits["train"]),
        validation=len(splits["val"]),
        test=len(splits["test"]),
        smallest=int(counts.min()) if len(counts) else 0,
        imbalance=float(counts.max() / counts.min()) if len(counts) else 1.0,
        short_side=int(np.median([min(each.width, each.height) for each in headers])) if headers else None,
        grey=float(np.mean([each.grey for each in headers])) if headers else 0.0,
        groups=None if samples.groups is None else len(np.unique(samples.groups)),
        elsewhere=_elsewhere(data),
    )


def _elsewhere(data: ImageDataModule) -> str:
    """What keeps the test images apart from the others; nothing is known of what a source states."""
    if data.split == "auto":
        return "group" if data.samples.groups is not None and data.samples.split is None else ""
    return "" if data.split == "stratified" else data.split


def model_facts(configuration: Configuration) -> Model:
    """What the backbone is."""
    task = configuration.model
    backbone, weights = str(task.hparams.backbone), str(task.hparams.weights)
    modules = list(task.backbone.modules())
    wide = sum(isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 for module in modules)
    own = preprocess_of(backbone, weights)
    assert isinstance(own, ImagePreprocess)
    return Model(
        backbone=backbone,
        weights=weights,
        parameters=sum(parameter.numel() for parameter in task.backbone.parameters()),
        own_size=own.size,
        sizes_fixed=task.transferred.fixed_size,
        convolutions=wide > 1,  # attention has at most the one that makes patches
        batch_norm=any(isinstance(module, BatchNorm) for module in modules),
        solvable=task.unsolvable is None and configuration.datamodule.sampler == "shuffled",
    )


def machine_facts(configuration: Configuration) -> Machine:
    """Where it would train."""
    trainer = configuration.trainer
    device = trainer.strategy.root_device
    gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if gpu else {"cpu": "the CPU"}.get(device.type, device.type)
    return Machine(name, gpu, usable_cores(), str(trainer.precision))


@dataclass(frozen=True, eq=False)
class Looked:
    """A candidate whose features have been looked at.

    Attributes:
        configuration: With which; its data are set up.
        splits: The images that were looked at.
        top: How good its features are.
        macs: Multiplications with an addition for one image.
    """

    configuration: Configuration
    splits: dict[str, NDArray[np.int64]]
    top: TopScores
    macs: int

    @property
    def name(self) -> str:
        """Backbone and weights."""
        return f"{self.configuration.model.hparams.backbone}={self.configuration.model.hparams.weights}"

    def as_good_as(self, best: "Looked") -> bool:
        """Whether it is behind another by no more than the noise, on the same images."""
        behind = best.top.ahead_of(self.top)
        return behind.value <= NOISE * behind.error


def set_up(args: list[str]) -> tuple[Configuration, list[str]]:
    """Builds a configuration that makes no run folder, for images of the size to be advised, and sets its data up.

    Args:
        args: Command-line arguments of ``tl fit``.

    Returns:
        The configuration, and its arguments, with the size among them where it is not the weights' own.

    Raises:
        UserError: If it asks for several processes, or something that ``tl fit`` would say.
    """
    configuration = assemble(args, command="advise")
    if "data.image_size" not in given_keys(args):
        size = image_size(image_facts(configuration.datamodule), model_facts(configuration))
        if size != configuration.model.preprocess["size"]:
            args = [*args, "--data.image_size", str(size)]
            configuration = assemble(args, command="advise")
    read_data(configuration, say=False)
    configuration.model.to(configuration.trainer.strategy.root_device)
    return configuration, args


def look(configuration: Configuration) -> Looked:
    """Runs the backbone once over the images, and solves a head on what comes out.

    Args:
        configuration: The data are set up.

    Raises:
        UserError: If there are too few images, or the backbone cannot be probed.
    """
    splits = probed_images(configuration.datamodule)
    task = configuration.model
    macs = count_macs(task.backbone, task.transferred.preprocess)
    return Looked(configuration, splits, probe_top(configuration, splits), macs)


def facts_of(looked: Looked, args: list[str]) -> Facts:
    """Everything about a candidate but the speeds: also its depth, the control with random weights, the similarity.

    Args:
        looked: The candidate.
        args: Those of its configuration.
    """
    configuration = looked.configuration
    data, task = configuration.datamodule, configuration.model
    size = int(task.preprocess["size"])
    control, similarity = None, None
    if task.hparams.weights != "none":
        try:
            random, _ = set_up([*args, "--model.weights", "none", "--data.image_size", str(size)])
            control = probe_top(random, looked.splits)
        except UserError as error:
            console.print(f"note       no control by random weights: {error}", style="yellow")
        similarity = measure_similarity(configuration, looked.splits["train"])
    stages = probe_depth(configuration, looked.splits)
    probe = probe_facts(looked.top, control, stages, what=OBJECTIVES[data.samples.problem_type].probe_name)
    return Facts(image_facts(data), model_facts(configuration), machine_facts(configuration), size, probe, similarity)
