"""timm as a provider: models of images, from prepared images to pooled features."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tl_lightning.backbones import hub, timm_models
from tl_lightning.backbones.backbone import Backbone
from tl_lightning.backbones.packages import known_package, offline_choices
from tl_lightning.backbones.run_folders import read_run
from tl_lightning.backbones.stages import stages_of
from tl_lightning.backbones.stem import adapt_stem
from tl_lightning.backbones.weights import load_source, load_source_model, run_folder, source_classifier, weight_file
from tl_lightning.errors import UserError
from tl_lightning.preprocess import ImagePreprocess, Preprocess

VALID_NAMES = timm_models.VALID_NAMES
PACKAGES = ("timm", "torchvision", "pillow")  # the last two prepare the images

__all__ = [  # of a `Provider`
    "VALID_NAMES",
    "build",
    "load_source_model",
    "preprocess_of",
    "source_classifier",
    "weights_problem",
]


class TimmBackbone(Backbone):
    """A model of timm without its classifier, so the names in its state dict are timm's own."""

    def maps(self, *inputs: Tensor) -> list[Tensor]:
        """Maps of features, from fine to coarse: after each reduction of a CNN, after each block of a ViT.

        Args:
            inputs: Prepared images (N, C, S, S).

        Returns:
            ``(N, C, H, W)`` each; the strides never fall.
        """
        maps: list[Tensor] = self.module.forward_intermediates(*inputs, intermediates_only=True)  # type: ignore[operator]
        return maps


def preprocess_of(name: str, weights: str = "pretrained") -> ImagePreprocess:
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
        return timm_models.of_images(read_run(folder, name).preprocess, name)
    if weights not in ("pretrained", "none"):
        weight_file(weights)  # a wrong path is better said here than after the data was read
    preprocess = timm_models.preprocess_from(timm_models.pretrained_config(model), name)
    known = known_package(weights, model)
    return replace(preprocess, interpolation=known.interpolation) if known and known.interpolation else preprocess


def build(
    name: str,
    weights: str,
    *,
    preprocess: Preprocess | None = None,
    drop_path_rate: float = 0.0,
    gradient_checkpointing: bool = False,
) -> TimmBackbone:
    """Builds a backbone with its weights; see `providers.build_backbone`.

    A model of fixed input size (ViT, Swin) is built for the size in use, and its position embeddings are resampled by
    timm. For another number of channels the first layer is changed, see `adapt_weight`.

    Args:
        name: ``timm/<timm name>`` or ``timm/hf-hub:<org>/<model>``.
        weights: Where its weights come from.
        preprocess: The preparation that is really used; `None` for the weights' own.
        drop_path_rate: Stochastic depth while training, in [0, 1).
        gradient_checkpointing: See `timm_models.checkpoint_gradients`.

    Raises:
        UserError: If the name is unknown, the weights cannot be had or do not fit, or the model does not take images
            of that size or of so many channels, or one of the options.
    """
    model = timm_models.timm_name(name)
    prepared = timm_models.of_images(preprocess or preprocess_of(name, weights), name)
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
    if gradient_checkpointing:
        timm_models.checkpoint_gradients(module, name)
    return TimmBackbone(
        # Depthwise convolutions run 2-4 times faster on a CPU in this layout, and GPUs' tensor cores want it too.
        module=module.to(memory_format=torch.channels_last),
        num_features=features,
        stages=stages_of(module, name),
        preprocess=prepared,
        inputs=("image",),
        name=name,
        weights=weights,
        lineage=source.lineage,
        packages=PACKAGES,
        fixed_size=bool(config.fixed_input_size),
    )


def weights_problem(name: str) -> str | None:
    """Says why pretrained weights cannot be fetched; see `providers.weights_problem`."""
    model = timm_models.timm_name(name)
    problem = hub.weights_problem(timm_models.pretrained_config(model))
    return problem and f"{problem}; what works offline as weights: {offline_choices(model)}"


def _feature_count(module: nn.Module, preprocess: Preprocess) -> int:
    """What the module really returns: timm's `num_features` is another number for VGG or MobileNetV3.

    Everything is replaced by tensors without memory, so this takes a moment for any model and any size.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    weightless = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    module.eval()
    with torch.no_grad():
        features = torch.func.functional_call(module, weightless, preprocess.example(2, "meta"))
    module.train()
    if features.ndim != 2:
        raise ValueError(f"its features have the shape {tuple(features.shape)}, not one row per image")
    return int(features.shape[1])
