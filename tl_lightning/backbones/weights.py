"""Where weights come from: timm's hub, chance, a package, a file, or an earlier run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tl_lightning.backbones import hub, timm_models
from tl_lightning.backbones.packages import PREFIX, offline_choices, package_file
from tl_lightning.backbones.run_folders import best_checkpoint, read_run
from tl_lightning.backbones.state_dicts import match, tensors_in
from tl_lightning.core.checkpoint_files import read_checkpoint
from tl_lightning.core.files import user_path
from tl_lightning.errors import UserError, nearest

VALID_WEIGHTS = "pretrained, none, package:NAME, a file, or the folder of an earlier run"


@dataclass(frozen=True)
class Source:
    """A model with its weights, before it becomes a backbone.

    Attributes:
        module: The timm model; with its pretraining classifier where the weights hold one, else without any.
        lineage: Where the weights came from, oldest first; empty for random ones.
        matched: How a file's tensors found their places, ``name`` or ``position``; else `None`.
        size: The side in pixels that the weights are for.
        channels: The number of channels that they are for.
    """

    module: nn.Module
    lineage: tuple[str, ...]
    matched: str | None
    size: int
    channels: int


def load_source_model(name: str, weights: str = "pretrained") -> nn.Module:
    """Builds the model as it was pretrained, classifier included, e.g. to see what it makes of a known image.

    Args:
        name: The backbone's name, e.g. ``timm/resnet18``.
        weights: Where its weights come from, as for `build_backbone`.

    Returns:
        A module from images (N, C, S, S) to logits (N, classes); to features, where the weights hold no classifier.

    Raises:
        UserError: If the name is unknown, or the weights cannot be had or do not fit.
    """
    return load_source(name, weights, drop_path_rate=0.0).module


def source_classifier(model: nn.Module) -> nn.Linear | None:
    """The classifier of a model as it was pretrained, where it tells one of ImageNet's sets of classes apart.

    Not every last layer that is linear does: that of CLIP projects features, and its outputs are no classes.

    Args:
        model: What `load_source_model` built.
    """
    from timm.data.imagenet_info import infer_imagenet_subset

    last = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    known = isinstance(last, nn.Linear) and infer_imagenet_subset({"num_classes": last.out_features}) is not None
    return last if known else None


def run_folder(weights: str) -> Path | None:
    """The folder of an earlier run of ours, if that is what `weights` names."""
    folder = user_path(weights)
    return folder if best_checkpoint(folder).is_file() else None


def load_source(name: str, weights: str, *, drop_path_rate: float, channels: int | None = None) -> Source:
    """Builds a model with the weights it is asked for; see `load_source_model`.

    Args:
        name: The backbone's name.
        weights: ``pretrained``, ``none``, ``package:NAME[/inner/path]``, a file, or a run folder.
        drop_path_rate: Stochastic depth, in [0, 1).
        channels: The number that is wanted: random weights are made for it, and a file may be for it. All other weights
            come for their own.

    Returns:
        The model and where its weights came from.

    Raises:
        UserError: If the name is unknown, or the weights cannot be had or do not fit.
    """
    model = timm_models.timm_name(name)
    if weights == "pretrained":
        return _pretrained(model, drop_path_rate)
    config = timm_models.pretrained_config(model)
    own = timm_models.preprocess_from(config, name)
    if weights == "none":
        module = timm_models.create(model, drop_path_rate, channels=channels)
        return Source(module, (), None, own.size, channels or own.channels)
    folder = run_folder(weights)
    path = best_checkpoint(folder) if folder else weight_file(weights)
    size, possible = own.size, dict.fromkeys((own.channels, channels or own.channels))
    if folder:
        run = read_run(folder, name)
        trained = timm_models.of_images(run.preprocess, name)
        tensors, lineage, size = run.tensors, run.lineage, trained.size
        possible = {trained.channels: None}
    else:
        checkpoint = read_checkpoint(path)
        if isinstance(checkpoint, Mapping) and "class_path" in checkpoint and "hyper_parameters" in checkpoint:
            raise _checkpoint_of_run(weights)
        tensors = tensors_in(checkpoint, path)
        lineage = (weights if weights.startswith(PREFIX) else str(path),)

    backbone, problems = timm_models.backbone_names(model), []
    for number in possible:
        fixed = size if config.fixed_input_size else None
        module = timm_models.create(model, drop_path_rate, size=fixed, channels=number)
        wanted, known = module.state_dict(), {buffer for buffer, _ in module.named_buffers()}
        try:
            fitting, matched = match(tensors, wanted, backbone=backbone, known=known)
        except UserError as error:
            problems.append(error)
            continue
        _check_finite(fitting, weights)
        module.load_state_dict(fitting, strict=False)  # `match` has seen to it that nothing of the backbone is missing
        if any(entry not in backbone and entry not in fitting for entry in wanted):
            module.reset_classifier(0)  # type: ignore[operator]  # no classifier is better than a random one
        return Source(module, lineage, matched, size, number)
    raise UserError(f"model.weights is {weights!r}, which does not fit {name}: {problems[0]}")


def weight_file(weights: str) -> Path:
    """Finds the file that ``package:NAME`` or a path means.

    Raises:
        UserError: If there is none; the message lists what `weights` can be.
    """
    if weights.startswith(PREFIX):
        return package_file(weights)
    path = user_path(weights)
    if path.is_file():
        if path.parent == best_checkpoint(path.parent.parent).parent and run_folder(str(path.parent.parent)):
            raise _checkpoint_of_run(weights)
        return path
    if path.is_dir():
        raise UserError(
            f"model.weights is the folder {weights!r}, but it holds no run: there is no {best_checkpoint(path)}"
        )
    hint = nearest(weights, ("pretrained", "none"))
    raise UserError(f"model.weights is {weights!r}: there is no such file{hint or f'; it can be {VALID_WEIGHTS}'}")


def _checkpoint_of_run(weights: str) -> UserError:
    """The mistake of naming a file of a run: its preparation of the images and its lineage stand beside it."""
    return UserError(
        f"model.weights is {weights!r}, a checkpoint of a run; name the run's folder instead, which also says how its "
        "images were prepared"
    )


def _check_finite(tensors: Mapping[str, Tensor], weights: str) -> None:
    """Refuses weights that make every output no number, which would look as if training had diverged."""
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise UserError(
            f"model.weights is {weights!r}, where {len(bad)} of {len(tensors)} tensors hold numbers that are not "
            f"finite ({bad[0]}): the training that wrote it diverged, or 16 bits were too few; take another file"
        )


def _pretrained(model: str, drop_path_rate: float) -> Source:
    config = timm_models.pretrained_config(model)
    own = timm_models.preprocess_from(config, f"timm/{model}")
    where = config.hf_hub_id or config.url or "timm"
    problem = hub.weights_problem(config)
    if problem is None:
        try:
            module = timm_models.create(model, drop_path_rate, pretrained=True)
        except UserError:
            raise
        except Exception as error:  # a download can break in as many ways as its libraries have releases
            problem = f"{type(error).__name__}: {hub.in_one_line(error)}"
    if problem is not None:
        raise UserError(
            f"model.weights is 'pretrained', but the weights of timm/{model} ({where}) cannot be fetched: {problem}; "
            f"what works offline as model.weights: {offline_choices(model)}"
        )
    tag = f"{config.architecture}.{config.tag}" if config.architecture and config.tag else model
    return Source(
        module, (f"pretrained:{model if model.startswith('hf-hub:') else tag}",), None, own.size, own.channels
    )
