"""timm as a provider of backbones: its names, its pretraining configurations, its models."""

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tl_lightning.backbones import hub
from tl_lightning.errors import UserError, nearest
from tl_lightning.preprocess import ImagePreprocess, Preprocess

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

VALID_NAMES = "timm/<timm name>, as timm/resnet18 or timm/resnet50.a1_in1k, or timm/hf-hub:<org>/<model>"
HUB_PREFIX = "hf-hub:"


def timm_name(name: str) -> str:
    """Checks a backbone's name and hands back timm's part of it.

    Args:
        name: For example ``timm/resnet18``, ``timm/resnet50.a1_in1k`` or ``timm/hf-hub:org/model``.

    Returns:
        What timm calls it. Whether a model is on the hub is not asked here.

    Raises:
        UserError: If the timm name is unknown; the nearest right names are given.
    """
    from timm.models import get_deprecated_models, list_models

    model = name.partition("/")[2]
    if model.startswith(HUB_PREFIX):
        if model.count("/") != 1 or not all(model.removeprefix(HUB_PREFIX).split("/")):
            raise UserError(f"model.backbone is {name!r}: a model on the hub is named timm/hf-hub:<org>/<model>")
        return model
    known, tagged = list_models(), list_models(include_tags=True)
    if model in known or model in tagged:
        return model
    if replacement := get_deprecated_models().get(model):
        raise UserError(f"model.backbone is {name!r}: timm renamed it; write timm/{replacement}")
    hint = nearest(name, (f"timm/{word}" for word in [*known, *tagged]))
    raise UserError(f"model.backbone is {name!r}: timm has no such model{hint or '; timm.list_models() names them'}")


def pretrained_config(model: str) -> "PretrainedCfg":
    """Reads how a model was pretrained, without building it.

    Args:
        model: What `timm_name` returned.

    Returns:
        timm's own record; its defaults for a model that timm registers none for.

    Raises:
        UserError: If a hub model's configuration cannot be fetched.
    """
    import timm
    from timm.models import PretrainedCfg, load_model_config_from_hf

    if not model.startswith(HUB_PREFIX):
        return timm.get_pretrained_cfg(model) or PretrainedCfg()
    hub_id = model.removeprefix(HUB_PREFIX)
    problem = hub.hub_problem(hub_id, ("config.json",))
    if problem is None:
        try:
            values, _, _ = load_model_config_from_hf(hub_id)
            return PretrainedCfg(**values)
        except Exception as error:  # the hub's libraries raise what their HTTP library of the day raises
            problem = hub.in_one_line(error)
    raise UserError(
        f"model.backbone is 'timm/{model}': its configuration cannot be fetched: {problem}; what works offline: a "
        "model that timm names itself"
    )


def preprocess_from(config: "PretrainedCfg", name: str) -> ImagePreprocess:
    """Reads the preparation of images out of timm's record.

    Args:
        config: The record; the training size counts, as in timm, not the test size.
        name: The backbone's name, for the error message.

    Returns:
        The preparation with which the weights were trained.

    Raises:
        UserError: If the model sees images that are not square.
    """
    channels, height, width = config.input_size
    if height != width:
        raise UserError(
            f"model.backbone is {name!r}: it sees images of {height}x{width} pixels, and only squares are supported; "
            "choose another backbone"
        )
    return ImagePreprocess(
        size=height,
        channels=channels,
        crop_pct=config.crop_pct,
        crop_mode=config.crop_mode,
        interpolation=config.interpolation,
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def of_images(preprocess: Preprocess, name: str) -> ImagePreprocess:
    """The same preparation, known to be one of images.

    Args:
        preprocess: A preparation of any kind.
        name: The backbone's name, for the error message.

    Raises:
        UserError: If it is of another kind.
    """
    if not isinstance(preprocess, ImagePreprocess):
        raise UserError(f"model.backbone is {name!r}, which takes images, but the inputs are {preprocess.kind}")
    return preprocess


def create(
    model: str,
    drop_path_rate: float,
    *,
    size: int | None = None,
    channels: int | None = None,
    pretrained: bool = False,
    tensors: dict[str, Tensor] | None = None,
) -> nn.Module:
    """Builds a timm model with its pretraining classifier.

    Args:
        model: What `timm_name` returned.
        drop_path_rate: Stochastic depth, in [0, 1).
        size: The side in pixels for a model of fixed input size; `None` for its own.
        channels: Number of channels that it takes; `None` for its own.
        pretrained: Fetch timm's weights.
        tensors: A state dict without classifier of the same model for another size: timm resamples the position
            embeddings, and the model gets no classifier.

    Returns:
        The model on the CPU, in train mode; its weights are random unless asked otherwise.

    Raises:
        UserError: If the model has no stochastic depth, or no choice of size or channels.
    """
    import timm

    options: dict[str, Any] = {}
    if drop_path_rate:
        options["drop_path_rate"] = drop_path_rate
    if size is not None:
        options["img_size"] = size
    if channels not in (None, pretrained_config(model).input_size[0]):  # a model may not offer the choice
        options["in_chans"] = channels
    if tensors is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": tensors, "source": None}
        if "in_chans" in options:
            options["pretrained_cfg_overlay"]["first_conv"] = None  # which fits already
        options["num_classes"] = 0
    try:
        with warnings.catch_warnings():
            # What torch says about the way timm resamples Swin's tables; nothing that a user could act upon.
            warnings.filterwarnings("ignore", message="torch.searchsorted|Using a non-tuple sequence")
            module: nn.Module = timm.create_model(model, pretrained=pretrained or tensors is not None, **options)
    except TypeError as error:
        words = {"drop_path_rate": "model.drop_path_rate", "img_size": "data.image_size", "in_chans": "data.channels"}
        for option, word in words.items():
            if option in options and option in str(error):
                raise UserError(
                    f"{word} is {options[option]}, but timm/{model} does not support it; leave it out"
                ) from error
        raise
    module.pretrained_cfg.pop("state_dict", None)  # type: ignore[operator, union-attr]  # else kept a second time
    return module


def backbone_names(model: str) -> set[str]:
    """The names in the model's state dict that are not its classifier's; costs no memory."""
    import timm

    with torch.device("meta"):
        return set(timm.create_model(model, num_classes=0).state_dict())


def checkpoint_gradients(module: nn.Module, name: str) -> None:
    """Trades time for memory: the backward pass computes the activations again (Chen et al. 2016, arXiv:1604.06174).

    Gradients stay the same. A BatchNorm that follows the batches sees each of them twice, so that its running
    statistics follow faster.

    Args:
        module: A timm model; changed in place.
        name: The backbone's name, for the error message.

    Raises:
        UserError: If timm offers no checkpointing for this model.
    """
    try:
        module.set_grad_checkpointing(True)  # type: ignore[operator]  # timm's models have it, nn.Module not
    except (AttributeError, AssertionError) as error:
        raise UserError(
            f"model.gradient_checkpointing: {name} does not offer it; leave it out, or choose another backbone"
        ) from error
