"""Which library a backbone comes from: the first part of its name says so."""

from torch import nn

from tl_lightning.backbones import timm_provider
from tl_lightning.backbones.backbone import Backbone
from tl_lightning.backbones.protocol import Provider
from tl_lightning.errors import UserError, nearest
from tl_lightning.preprocess import Preprocess

PROVIDERS: dict[str, Provider] = {"timm": timm_provider}


def provider_of(name: str) -> Provider:
    """Finds the provider of a backbone.

    Args:
        name: The backbone's name, e.g. ``timm/resnet18``.

    Raises:
        UserError: If there is none of that prefix.
    """
    prefix, slash, _ = name.partition("/")
    if slash and prefix in PROVIDERS:
        return PROVIDERS[prefix]
    hint = nearest(prefix, PROVIDERS) if slash else ""
    names = "; or ".join(provider.VALID_NAMES for provider in PROVIDERS.values())
    raise UserError(f"model.backbone is {name!r}: it has to be {names}{hint}")


def preprocess_of(name: str, weights: str = "pretrained") -> Preprocess:
    """Says how inputs have to be prepared, without building the model.

    Args:
        name: ``PROVIDER/NAME``, e.g. ``timm/resnet18``.
        weights: ``pretrained``, ``none``, ``package:NAME[/inner/path]``, a file, or the folder of an earlier run.

    Returns:
        The preparation with which the weights were trained; a run's own, if `weights` is one.

    Raises:
        UserError: If the name is unknown, the run trained another backbone, or its inputs cannot be prepared.
    """
    return provider_of(name).preprocess_of(name, weights)


def build_backbone(
    name: str,
    weights: str = "pretrained",
    *,
    preprocess: Preprocess | None = None,
    drop_path_rate: float = 0.0,
    gradient_checkpointing: bool = False,
) -> Backbone:
    """Builds a backbone with its weights.

    Args:
        name: ``PROVIDER/NAME``, e.g. ``timm/resnet18``.
        weights: ``pretrained``, ``none`` (random), ``package:NAME[/inner/path]``, a file, or the folder of an earlier
            run.
        preprocess: The preparation that is really used, e.g. of another size; `None` for the weights' own.
        drop_path_rate: Stochastic depth while training, in [0, 1).
        gradient_checkpointing: Computes activations again in the backward pass instead of keeping them.

    Returns:
        The backbone, on the CPU, in train mode.

    Raises:
        UserError: If the name is unknown, the weights cannot be had or do not fit, or the model does not take such
            inputs or one of the options.
    """
    if not 0 <= drop_path_rate < 1:
        raise UserError(f"model.drop_path_rate is {drop_path_rate}; it has to be at least 0 and below 1")
    return provider_of(name).build(
        name,
        weights,
        preprocess=preprocess,
        drop_path_rate=drop_path_rate,
        gradient_checkpointing=gradient_checkpointing,
    )


def weights_problem(name: str) -> str | None:
    """Says why a backbone's pretrained weights cannot be fetched, and what works without; `None` where they can.

    Args:
        name: The backbone's name.

    Raises:
        UserError: If the name is unknown.
    """
    return provider_of(name).weights_problem(name)


def load_source_model(name: str, weights: str = "pretrained") -> nn.Module:
    """Builds the model as it was pretrained, classifier included, e.g. to see what it makes of a known input.

    Args:
        name: The backbone's name.
        weights: Where its weights come from, as for `build_backbone`.

    Returns:
        A module from the backbone's inputs to logits (N, classes); to features, where the weights hold no classifier.

    Raises:
        UserError: If the name is unknown, or the weights cannot be had or do not fit.
    """
    return provider_of(name).load_source_model(name, weights)


def source_classifier(name: str, model: nn.Module) -> nn.Linear | None:
    """The last layer of a model as it was pretrained, where it tells well-known classes apart.

    Args:
        name: The backbone's name.
        model: What `load_source_model` built.
    """
    return provider_of(name).source_classifier(model)
