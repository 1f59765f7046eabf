"""A backbone cut in two at a stage boundary, exactly, so that what is frozen need not be computed again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tl_lightning.backbones.stages import Stage
from tl_lightning.backbones.tracing import CannotSplit, Trace, Whole, path, trace

Copies = dict[fx.Node, fx.Node]


@dataclass(frozen=True)
class Split:
    """The two halves of a backbone. Their submodules and parameters are the backbone's own, not copies.

    Attributes:
        prefix: Prepared images (N, C, S, S) -> tuple of the tensors that cross the cut, N rows each. Running it
            raises `CannotSplit` if anything else would have to cross.
        suffix: Those tensors, as arguments of their own -> features (N, num_features). It may change them in place.
    """

    prefix: nn.Module
    suffix: nn.Module


def split_backbone(module: nn.Module, stages: Sequence[Stage], cut: int) -> Split:
    """Cuts a backbone between two stages.

    Only the code around the blocks, where it spans the cut, is traced (``torch.fx``); the blocks are called as they
    are. So train and eval mode stay those of the backbone's own submodules, and neither batch size nor image size is
    baked in. What has no parameters, such as an activation, goes with the stage before it. Nothing is run here: compare
    the halves with the whole on real images before relying on them.

    Args:
        module: The backbone's module.
        stages: All of its stages.
        cut: How many stages are in the prefix, from 1 to all of them; with all of them the suffix is the identity.

    Returns:
        The halves. They follow the backbone through training and to other devices.

    Raises:
        CannotSplit: If the code around the blocks cannot be traced, does another thing in train mode than in eval mode,
            checkpoints gradients, or needs more of the prefix than tensors.
    """
    if not 1 <= cut <= len(stages):
        raise ValueError(f"cut is {cut}; it must be from 1 to {len(stages)}")
    if cut == len(stages):
        return Split(Whole(module), nn.Identity())
    traced = trace(module, stages, lambda position: int(position >= cut))
    crossing = traced.crossing(0)
    if tensors := [path(node) for node in crossing if node.op == "get_attr"]:
        raise CannotSplit(f"{tensors[0]} lies before the cut and is used after it")
    return Split(_prefix(module, traced, crossing), _suffix(module, traced, crossing))


def stage_outputs(module: nn.Module, stages: Sequence[Stage]) -> nn.Module:
    """Makes every depth of a backbone visible in one forward pass.

    Args:
        module: The backbone's module.
        stages: All of its stages.

    Returns:
        Prepared images (N, C, S, S) -> for each stage one float32 tensor (N, width): the mean over all positions of
        what the stage hands on, tensors beside each other where it hands on several. The last is the backbone's own
        features.

    Raises:
        CannotSplit: As `split_backbone` does.
    """
    traced = trace(module, stages, lambda position: position)
    boundaries = [traced.crossing(depth) for depth in range(len(stages) - 1)]
    layout = str(getattr(module, "output_fmt", "NCHW"))
    graph = fx.Graph()
    copies: Copies = {}
    means: Copies = {}
    for node in traced.depths:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if any(node in nodes for nodes in boundaries):  # now rather than at the end: a later layer may work in place
            means[node] = graph.call_function(_mean, (copies[traced.images], copies[node], layout))
    outputs = [graph.call_function(torch.cat, ([means[node] for node in nodes], 1)) for nodes in boundaries]
    graph.output((*outputs, graph.call_method("float", (copies[traced.features],))))
    return _compiled(module, graph)


def _prefix(module: nn.Module, traced: Trace, crossing: Sequence[fx.Node]) -> nn.Module:
    graph = fx.Graph()
    copies: Copies = {}
    for node, depth in traced.depths.items():
        if depth == 0:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(graph.call_function(_checked, tuple(copies[node] for node in (traced.images, *crossing))))
    return _compiled(module, graph)


def _suffix(module: nn.Module, traced: Trace, crossing: Sequence[fx.Node]) -> nn.Module:
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in crossing}

    def copy(node: fx.Node) -> None:
        if node in copies:
            return
        if traced.depths[node] == 0 and node not in traced.movable:
            raise CannotSplit(f"the size of {node.name}, which does not cross the cut, is needed after it")
        for each in node.all_input_nodes:
            copy(each)
        copies[node] = graph.node_copy(node, copies.__getitem__)

    for node, depth in traced.depths.items():
        if depth == 1:
            copy(node)
    graph.output(copies[traced.features])
    return _compiled(module, graph)


def _compiled(module: nn.Module, graph: fx.Graph) -> nn.Module:
    for node in graph.nodes:
        if node.op in ("get_attr", "call_module"):
            node.target = path(node)
    part = fx.GraphModule(module, graph)
    for name, each in part.named_modules():
        each._buffers = module.get_submodule(name)._buffers  # a module that is moved replaces its buffers in there
    return part


def _checked(images: Tensor, *crossing: Any) -> tuple[Tensor, ...]:  # noqa: ANN401  # that is what is checked
    if not all(_has_rows(value, len(images)) for value in crossing):
        raise CannotSplit("something else than tensors with one row per image crosses the cut")
    return crossing


def _has_rows(value: Any, count: int) -> bool:  # noqa: ANN401
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == count


def _mean(images: Tensor, value: Any, layout: str) -> Tensor:  # noqa: ANN401  # whatever a stage hands on
    """The mean over positions as float32 (N, width); of what has no row per image (a size), a width of 0."""
    if isinstance(value, tuple | list):
        return torch.cat([_mean(images, each, layout) for each in value], 1)
    if not _has_rows(value, len(images)):
        return torch.empty(len(images), 0, device=images.device)
    axes = _positions(value.shape, layout)
    mean: Tensor = value.float().mean(axes) if axes else value.float()
    return mean


def _positions(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    if len(shape) == 3:  # tokens
        return (1,)
    # Images are square, so the two equal axes are the positions; timm's word counts where all three are equal.
    if len(shape) == 4 and shape[1] == shape[2] and (shape[3] != shape[2] or layout == "NHWC"):
        return (1, 2)
    return tuple(range(2, len(shape)))
