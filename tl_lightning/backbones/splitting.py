"""A backbone cut in two at a stage boundary, exactly, so that what is frozen need not be computed again."""

from collections.abc import Mapping, Sequence
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
        prefix: The backbone's inputs -> tuple of the tensors that cross the cut, N rows each. Running it
            raises `CannotSplit` if anything else would have to cross.
        suffix: Those tensors, as arguments of their own -> features (N, num_features). It may change them in place.
    """

    prefix: nn.Module
    suffix: nn.Module


def split_backbone(module: nn.Module, stages: Sequence[Stage], cut: int, *, inputs: Sequence[str]) -> Split:
    """Cuts a backbone between two stages.

    Only the code around the blocks, where it spans the cut, is traced (``torch.fx``); the blocks are called as they
    are. So train and eval mode stay those of the backbone's own submodules, and neither batch size nor image size is
    baked in. What has no parameters, such as an activation, goes with the stage before it; an input that a later stage
    needs as well, such as a mask, crosses the cut. Nothing is run here: compare the halves with the whole on real
    inputs before relying on them.

    Args:
        module: The backbone's module.
        stages: All of its stages.
        cut: How many stages are in the prefix, from 1 to all of them; with all of them the suffix is the identity.
        inputs: What the module takes.

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
    traced = trace(module, stages, lambda position: int(position >= cut), inputs=len(inputs))
    crossing = traced.crossing(0)
    if tensors := [path(node) for node in crossing if node.op == "get_attr"]:
        raise CannotSplit(f"{tensors[0]} lies before the cut and is used after it")
    names = dict(zip(traced.inputs, inputs, strict=True))
    return Split(_prefix(module, traced, crossing), _suffix(module, traced, crossing, names))


def stage_outputs(module: nn.Module, stages: Sequence[Stage], *, inputs: Sequence[str]) -> nn.Module:
    """Makes every depth of a backbone visible in one forward pass.

    Args:
        module: The backbone's module.
        stages: All of its stages.
        inputs: What the module takes. The positions of a sequence count by the one whose name ends in ``mask``.

    Returns:
        The backbone's inputs -> for each stage one float32 tensor (N, width): the mean over all positions of what the
        stage hands on, tensors beside each other where it hands on several. The last is the backbone's own features.

    Raises:
        CannotSplit: As `split_backbone` does.
    """
    traced = trace(module, stages, lambda position: position, inputs=len(inputs))
    boundaries = [
        [node for node in traced.crossing(depth) if node in traced.learned] for depth in range(len(stages) - 1)
    ]
    layout = str(getattr(module, "output_fmt", "NCHW"))
    graph = fx.Graph()
    copies = _placeholders(graph, traced.inputs)
    mask = next((copies[node] for node, name in zip(traced.inputs, inputs, strict=True) if name.endswith("mask")), None)
    means: Copies = {}
    for node in traced.depths:
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        if any(node in nodes for nodes in boundaries):  # now rather than at the end: a later layer may work in place
            means[node] = graph.call_function(_mean, (copies[traced.inputs[0]], copies[node], layout, mask))
    outputs = [graph.call_function(torch.cat, ([means[node] for node in nodes], 1)) for nodes in boundaries]
    graph.output((*outputs, graph.call_method("float", (copies[traced.features],))))
    return _compiled(module, graph)


def _prefix(module: nn.Module, traced: Trace, crossing: Sequence[fx.Node]) -> nn.Module:
    graph = fx.Graph()
    copies = _placeholders(graph, traced.inputs)
    for node, depth in traced.depths.items():
        if depth == 0 and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    computed = tuple(copies[node] for node in crossing if node not in traced.inputs)
    checked = (copies[traced.inputs[0]], computed, tuple(copies[node] for node in crossing))
    graph.output(graph.call_function(_checked, checked))
    return _compiled(module, graph)


def _suffix(module: nn.Module, traced: Trace, crossing: Sequence[fx.Node], names: Mapping[fx.Node, str]) -> nn.Module:
    graph = fx.Graph()
    copies = _placeholders(graph, crossing)

    def copy(node: fx.Node) -> None:
        if node in copies:
            return
        if traced.depths[node] == 0 and node not in traced.movable:
            raise CannotSplit(
                f"the size of {names.get(node, node.name)}, which does not cross the cut, is needed after it"
            )
        for each in node.all_input_nodes:
            copy(each)
        copies[node] = graph.node_copy(node, copies.__getitem__)

    for node, depth in traced.depths.items():
        if depth == 1:
            copy(node)
    graph.output(copies[traced.features])
    return _compiled(module, graph)


def _placeholders(graph: fx.Graph, nodes: Sequence[fx.Node]) -> Copies:
    return {node: graph.placeholder(node.name) for node in nodes}


def _compiled(module: nn.Module, graph: fx.Graph) -> nn.Module:
    for node in graph.nodes:
        if node.op in ("get_attr", "call_module"):
            node.target = path(node)
    part = fx.GraphModule(module, graph)
    for name, each in part.named_modules():
        each._buffers = module.get_submodule(name)._buffers  # a module that is moved replaces its buffers in there
    return part


def _checked(first: Tensor, computed: tuple[Any, ...], crossing: tuple[Any, ...]) -> tuple[Tensor, ...]:
    if not all(_has_rows(value, len(first)) for value in computed):
        raise CannotSplit("something else than tensors with one row per sample crosses the cut")
    return crossing


def _has_rows(value: Any, count: int) -> bool:  # noqa: ANN401
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == count


def _mean(first: Tensor, value: Any, layout: str, mask: Tensor | None) -> Tensor:  # noqa: ANN401  # whatever it is
    """The mean over positions as float32 (N, width); of what has no row per sample (a size), a width of 0."""
    if isinstance(value, tuple | list):
        return torch.cat([_mean(first, each, layout, mask) for each in value], 1)
    if not _has_rows(value, len(first)):
        return torch.empty(len(first), 0, device=first.device)
    if mask is not None and value.ndim == 3 and value.shape[:2] == mask.shape:
        counts = mask.float().unsqueeze(2)
        masked: Tensor = (value.float() * counts).sum(1) / counts.sum(1).clamp(min=1)
        return masked
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
