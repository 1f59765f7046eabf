"""What a backbone computes, in which order and how deep, without looking into its blocks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor, fx, nn

from tl_lightning.backbones.stages import Stage

SIZES = ("shape", "ndim", "dtype", "device")  # attributes of tensors that are no tensors


class CannotSplit(Exception):
    """Why a backbone cannot be cut there; the caller falls back to running it whole."""


class Whole(nn.Module):
    """A backbone as a prefix: the only tensor that crosses a cut above it is its features."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        """The backbone's inputs -> features (N, num_features), in a tuple."""
        return (self.module(*inputs),)


class _Traced(nn.Module):
    """Calls a module with its inputs alone, though its forward may take more, such as a mask that is left out."""

    def __init__(self, module: nn.Module, count: int) -> None:
        super().__init__()
        self.module = module
        self._count = count

    def forward(self, inputs: Any) -> Any:  # noqa: ANN401  # fx hands over one that stands for all, and knows no length
        return self.module(*[inputs[position] for position in range(self._count)])


@dataclass(frozen=True)
class Trace:
    """What a backbone computes.

    Attributes:
        depths: The nodes in the order of running, each with the part of the backbone that it belongs to.
        movable: Those that depend on no parameter, and on the inputs through sizes at most: any part can compute them
            for itself.
        learned: Those that depend on a parameter.
        inputs: What goes in, in the order of the module's arguments.
        features: What comes out.
    """

    depths: dict[fx.Node, int]
    movable: set[fx.Node]
    learned: set[fx.Node]
    inputs: tuple[fx.Node, ...]
    features: fx.Node

    def crossing(self, depth: int) -> list[fx.Node]:
        """What the parts up to `depth` hand on to later ones."""
        return [node for node in self.depths if node not in self.movable and self._crosses(node, depth)]

    def _crosses(self, node: fx.Node, depth: int) -> bool:
        later = node is self.features or any(self.depths.get(user, 0) > depth for user in node.users)
        return later and self.depths[node] <= depth


def trace(module: nn.Module, stages: Sequence[Stage], part_of: Callable[[int], int], *, inputs: int) -> Trace:
    """Traces only the modules that hold tensors of several parts; every other one is called as it is.

    Args:
        module: The backbone's module.
        stages: All of its stages.
        part_of: To which part a stage belongs, by its position; deeper stages to no earlier part.
        inputs: How many tensors the module takes.

    Returns:
        What it computes. What has no parameters belongs to the last part that it depends on.

    Raises:
        CannotSplit: If that code cannot be traced, does another thing in train mode than in eval mode, checkpoints
            gradients, or goes back to an earlier part.
    """
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    parts = {
        id(tensors[name]): part_of(position)
        for position, stage in enumerate(stages)
        for name in (*stage.parameters, *stage.buffers)
    }
    containers = [each for each in module.modules() if each is module or len(_parts(_tensors(each), parts)) > 1]
    if any(getattr(container, "grad_checkpointing", False) for container in containers):
        raise CannotSplit("gradient checkpointing is on")
    given, *nodes, output = _graph(_Traced(module, inputs), containers).nodes
    found = Trace({}, set(), set(), tuple(nodes[:inputs]), output.args[0])
    for node in nodes:
        before = [each for each in node.all_input_nodes if each is not given]
        depth = max((found.depths[each] for each in before), default=0)
        own = _tensors(attrgetter(path(node))(module)) if node.op in ("get_attr", "call_module") else []
        parameters = [tensor for tensor in own if isinstance(tensor, nn.Parameter)]
        if any(part < depth for part in _parts(parameters, parts)):
            raise CannotSplit(f"{path(node)} is used again after a later stage")
        found.depths[node] = max(depth, *_parts(own, parts), 0)
        if _reads_size(node) or (node not in found.inputs and not parameters and found.movable.issuperset(before)):
            found.movable.add(node)
        elif parameters or not found.learned.isdisjoint(before):
            found.learned.add(node)
    return found


def path(node: fx.Node) -> str:
    """Where the module or tensor that a node uses is in the backbone."""
    return str(node.target).removeprefix("module.")


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, containers: Iterable[nn.Module]) -> None:
        from timm.models import get_notrace_functions

        opaque = get_notrace_functions()  # type: ignore[no-untyped-call]  # timm has not annotated it
        super().__init__(autowrap_functions=tuple(opaque))
        self._containers = set(containers)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m not in self._containers

    def create_arg(self, a: Any) -> Any:  # noqa: ANN401  # fx accepts anything
        if isinstance(a, Tensor) and not isinstance(a, nn.Parameter):
            raise CannotSplit("its forward pass makes tensors of its own, which cannot follow it to another device")
        return super().create_arg(a)


def _graph(whole: _Traced, containers: Sequence[nn.Module]) -> fx.Graph:
    """The graph, if it is the same in train mode and in eval mode."""
    modes = {module: module.training for module in whole.modules()}
    graphs = []
    try:
        for training in (True, False):
            for module in modes:
                module.training = training
            graphs.append(_Tracer([whole, *containers]).trace(whole))
    except CannotSplit:
        raise
    except Exception as error:  # whatever its code makes of tensors that are not there
        reason = str(error).strip().partition("\n")[0]
        raise CannotSplit(f"its forward pass cannot be traced: {reason}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    if str(graphs[0]) != str(graphs[1]):
        raise CannotSplit("its forward pass itself depends on train or eval mode")
    return graphs[0]


def _tensors(owner: nn.Module | Tensor) -> list[Tensor]:
    return [owner] if isinstance(owner, Tensor) else [*owner.parameters(), *owner.buffers()]


def _parts(tensors: Iterable[Tensor], parts: dict[int, int]) -> set[int]:
    return {parts[id(tensor)] for tensor in tensors if id(tensor) in parts}


def _reads_size(node: fx.Node) -> bool:
    return node.target in ("size", "dim") or (node.target is getattr and node.args[1] in SIZES)
