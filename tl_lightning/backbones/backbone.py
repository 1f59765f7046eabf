"""The backbone: from prepared images to features, knowing its own depth, width and preparation."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from tl_lightning.backbones import timm_models
from tl_lightning.backbones.packages import known_package
from tl_lightning.backbones.run_folders import read_run
from tl_lightning.backbones.stages import Stage, stages_of
from tl_lightning.backbones.stem import adapt_stem
from tl_lightning.backbones.weights import load_source, run_folder, weight_file
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import Preprocess


@dataclass(frozen=True)
class Backbone:
    """What is transferred, and what it knows about itself.

    Attributes:
        module: Prepared images (N, C, S, S), float -> features (N, `num_features`). It is timm's model without its
            classifier, so the names in its state dict are timm's own.
        num_features: The width of the features.
        stages: Depth-ordered, input to output; every parameter and buffer of `module` is in exactly one.
        preprocess: How images have to be prepared for it.
        name: What it was asked for by, e.g. ``timm/tf_efficientnet_lite0``.
        weights: Where its weights were asked from, e.g. ``pretrained``.
        lineage: Where its weights came from, oldest first; empty for random ones.
    """

    module: nn.Module
    num_features: int
    stages: tuple[Stage, ...]
    preprocess: Preprocess
    name: str
    weights: str
    lineage: tuple[str, ...]


def preprocess_of(name: str, weights: str = "pretrained") -> Preprocess:
    """Says how images have to be prepared, without building the model.

    Args:
        name: ``timm/<timm name>`` or ``timm/hf-hub:<org>/<model>``.
        weights: ``pretrained``, ``none``, ``package:NAME[/inner/path]``, a file, or the folder of an earlier run.

    Returns:
        The preparation with which the weights were trained; a run's own, if `weights` is one.

    Raises:
        UserError: If the name is unknown, the run trained another backbone, or images are not square.
    """
    model = timm_models.timm_name(name)
    if (folder := run_folder(weights)) is not None:
        return read_run(folder, name).preprocess
    if weights not in ("pretrained", "none"):
        weight_file(weights)  # a wrong path is better said here than after the data was read
    preprocess = timm_models.preprocess_from(timm_models.pretrained_config(model), name)
    known = known_package(weights, model)
    return replace(preprocess, interpolation=known.interpolation) if known and known.interpolation else preprocess


def build_backbone(
    name: str, weights: str = "pretrained", *, preprocess: Preprocess | None = None, drop_path_rate: float = 0.0
) -> Backbone:
    """Builds a backbone with its weights.

    Args:
        name: ``timm/<timm name>`` or ``timm/hf-hub:<org>/<model>``.
        weights: ``pretrained``, ``none`` (random), ``package:NAME[/inner/path]``, a file, or the folder of an earlier
            run.
        preprocess: The preparation that is really used, e.g. of another size; `None` for the weights' own. A model of
            fixed input size (ViT, Swin) is built for that size and its position embeddings are resampled by timm. For
            another number of channels the first layer is changed, see `adapt_weight`.
        drop_path_rate: Stochastic depth while training, in [0, 1).

    Returns:
        The backbone, on the CPU, in train mode.

    Raises:
        UserError: If the name is unknown, the weights cannot be had or do not fit, or the model does not take images
            of that size or of so many channels, or this stochastic depth.
    """
    if not 0 <= drop_path_rate < 1:
        raise UserError(f"model.drop_path_rate is {drop_path_rate}; it has to be at least 0 and below 1")
    model = timm_models.timm_name(name)
    prepared = preprocess or preprocess_of(name, weights)
    source = load_source(name, weights, drop_path_rate=drop_path_rate, channels=prepared.channels)
    module, config = source.module, timm_models.pretrained_config(model)
    try:
        module.reset_classifier(0)  # type: ignore[operator]  # timm's models have it, nn.Module not
        size = prepared.size if config.fixed_input_size and prepared.size != source.size else None
        if size is not None:
            tensors = module.state_dict()
            module = timm_models.create(model, drop_path_rate, size=size, channels=source.channels, tensors=tensors)
        if prepared.channels != source.channels:
            size = prepared.size if config.fixed_input_size and prepared.size != config.input_size[1] else None
            whole = timm_models.create(model, drop_path_rate, size=size, channels=prepared.channels)
            whole.reset_classifier(0)  # type: ignore[operator]
            counts = {"before": source.channels, "channels": prepared.channels}
            whole.load_state_dict(adapt_stem(module.state_dict(), whole.state_dict(), **counts, name=name))
            module = whole
        features = _feature_count(module, prepared)
    except (RuntimeError, ValueError, AssertionError, ZeroDivisionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"data.image_size is {prepared.size}, but {name} does not take images of {prepared.size}x{prepared.size} "
            f"pixels with {prepared.channels} channels ({reason}); its own size is {source.size}"
        ) from error
    return Backbone(module, features, stages_of(module, name), prepared, name, weights, source.lineage)


def _feature_count(module: nn.Module, preprocess: Preprocess) -> int:
    """What the module really returns: timm's `num_features` is another number for VGG or MobileNetV3.

    Everything is replaced by tensors without memory, so this takes a moment for any model and any size.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    weightless = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    images = torch.empty(2, preprocess.channels, preprocess.size, preprocess.size, device="meta")
    module.eval()
    with torch.no_grad():
        features = torch.func.functional_call(module, weightless, images)
    module.train()
    if features.ndim != 2:
        raise ValueError(f"its features have the shape {tuple(features.shape)}, not one row per image")
    return int(features.shape[1])
