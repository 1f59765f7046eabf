"""The depth of a backbone: its stages, from input to output, as timm itself groups them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from tl_lightning.errors import UserError


@dataclass(frozen=True)
class Stage:
    """A slice of a backbone's depth.

    Attributes:
        name: Where the stage sits in the module, e.g. ``conv_stem``, ``blocks.4``, ``layer3``.
        parameters: Names in ``module.named_parameters()``.
        buffers: Names in ``module.named_buffers()``.
    """

    name: str
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]


def stages_of(module: nn.Module, name: str) -> tuple[Stage, ...]:
    """Cuts a timm model without classifier into stages, with every parameter and buffer in exactly one.

    Args:
        module: A timm model; its own ``group_matcher(coarse=True)`` says what belongs together.
        name: The backbone's name, for the error message.

    Returns:
        The stages in depth order, input to output.

    Raises:
        UserError: If timm states no depth order for this model.
    """
    from timm.models import group_parameters

    try:
        matcher = module.group_matcher(coarse=True)  # type: ignore[operator]  # timm's models have it, nn.Module not
    except (AttributeError, AssertionError) as error:
        raise UserError(
            f"model.backbone is {name!r}: timm states no depth order (group_matcher) for this model, so it cannot be "
            "cut into stages; choose another backbone"
        ) from error
    parameters = dict(module.named_parameters())
    groups: list[tuple[str, ...]] = []
    for names in group_parameters(module, matcher).values():
        if groups and all(parameters[parameter].ndim <= 1 for parameter in names):
            # A lone norm (ConvNeXt's head.norm, once the classifier is gone; each of VGG's with BatchNorm) is not what
            # "the top stage" should train: it goes with the layers that it follows.
            groups[-1] += tuple(names)
        else:
            groups.append(tuple(names))
    owners = {parameter: index for index, group in enumerate(groups) for parameter in group}
    buffers: list[list[str]] = [[] for _ in groups]
    for buffer, _ in module.named_buffers():
        buffers[_stage_of_buffer(buffer, owners)].append(buffer)
    return tuple(
        Stage(_stage_name(group, (other for other in owners if owners[other] != index)), group, tuple(buffers[index]))
        for index, group in enumerate(groups)
    )


def _stage_name(group: Sequence[str], others: Iterable[str]) -> str:
    """The shortest path to the group's first parameter in a submodule that leads to no other group's."""
    others = tuple(others)
    first = next((name for name in group if "." in name), group[0])  # a ViT's first group begins with bare tokens
    parts = first.split(".")
    for length in range(1, len(parts)):
        path = ".".join(parts[:length])
        # "head" is what the task puts on top, everywhere in this package
        if path != "head" and not any(other.startswith(f"{path}.") for other in others):
            return path
    return first


def _stage_of_buffer(buffer: str, owners: dict[str, int]) -> int:
    """The stage of the nearest enclosing module that owns parameters; the first stage where only the root does."""
    path = buffer
    while "." in path:
        path = path.rpartition(".")[0]
        for parameter, index in owners.items():
            if parameter.startswith(f"{path}."):
                return index
    return 0
