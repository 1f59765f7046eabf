"""How far the activations of some images are from the statistics that BatchNorm layers carry of their source.

Pure arithmetic on a backbone and prepared images; `similarity` says what the numbers mean.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tl_lightning.backbones import Stage
from tl_lightning.core.private import BatchNorm


@dataclass(frozen=True)
class LayerDistance:
    """How far the input of one BatchNorm layer is from what the layer saw in pretraining.

    Attributes:
        name: The layer's name in the backbone.
        stage: The stage that it belongs to.
        distance: In deviations of the source; 0 where nothing has changed. See `distance`.
    """

    name: str
    stage: str
    distance: float


class HalfMoments:
    """Means and variances per channel of what a layer is given, for two halves of the images apart.

    Attributes:
        images: How many each half has seen, ``(2,)``.
    """

    def __init__(self) -> None:
        self.images = torch.zeros(2, dtype=torch.float64)
        self._first = self._second = torch.zeros(2, 0, dtype=torch.float64)

    def add(self, inputs: Tensor) -> None:
        """Adds a batch; every other image belongs to the same half.

        Args:
            inputs: ``(N, C, ...)``, of any float type.
        """
        values = inputs.detach().float().reshape(len(inputs), inputs.shape[1], -1)
        # Per image in float32, where there are thousands of positions; then added up in float64.
        means, squares = values.mean(dim=2).double().cpu(), values.square().mean(dim=2).double().cpu()
        if not self.images.any():
            self._first, self._second = (torch.zeros(2, means.shape[1], dtype=torch.float64) for _ in range(2))
        half = (torch.arange(len(values)) + int(self.images.sum())) % 2
        for number in (0, 1):
            own = half == number
            self._first[number] += means[own].sum(dim=0)
            self._second[number] += squares[own].sum(dim=0)
            self.images[number] += int(own.sum())

    def halves(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations, ``(2, channels)`` each."""
        means = self._first / self.images[:, None]
        return means, (self._second / self.images[:, None] - means.square()).clamp_min(0).sqrt()


def distance(means: Tensor, deviations: Tensor, *, source_mean: Tensor, source_variance: Tensor, eps: float) -> float:
    """The distance of a layer's input from its source: the root of the median, over channels, of a squared distance.

    For each channel it is the squared 2-Wasserstein distance between two Gaussians, ``(mt - ms)^2 + (st - ss)^2``,
    which Schneider et al. (2020, arXiv:2006.16971) use between the statistics of a source and of corrupted images and
    find to go with the error; that shifted statistics are what changes with the domain, AdaBN says (Li et al. 2016,
    arXiv:1603.04779). Here it is divided by ``ss^2 + eps``, by which the layer divides: the unit is then that of the
    layer's output, and the same in all layers.

    The median over the channels, because some are dead (their variance in the source is next to nothing) and any
    input is thousands of their deviations away: of the mean of MobileNetV2's layers they are all there is.

    From few images the means and deviations are off by chance, and squares only ever add up. So each square is
    replaced by the product of what two halves of the images say, whose chances are independent: the product's
    expectation is the square of the true difference, however few images there are (the deviations' is so but for
    their own small bias).

    Args:
        means: The means of the two halves, ``(2, channels)``.
        deviations: The standard deviations of the two halves, ``(2, channels)``.
        source_mean: What the layer carries, ``(channels,)``.
        source_variance: The running variance of each channel, ``(channels,)``.
        eps: What the layer adds to the variance.

    Returns:
        0 or more.
    """
    source_deviation = (source_variance + eps).sqrt()
    by_mean = ((means - source_mean) / source_deviation).prod(dim=0)
    by_deviation = (((deviations.square() + eps).sqrt() - source_deviation) / source_deviation).prod(dim=0)
    return float((by_mean + by_deviation).median().clamp_min(0).sqrt())


def layer_distances(
    backbone: nn.Module, stages: Sequence[Stage], batches: Iterable[Sequence[Tensor]]
) -> list[LayerDistance]:
    """Measures every BatchNorm layer, fused ones of timm's included, in one pass over the images.

    Args:
        backbone: Run in eval mode, so that each layer is given what inference gives it; its modes are afterwards what
            they were.
        stages: Those of the backbone.
        batches: The backbone's inputs, prepared, of four samples or more in all, in a random order: every other one
            belongs to the same half.

    Returns:
        One entry per layer that carries statistics, input to output; empty where there is none.
    """
    layers: dict[str, BatchNorm] = {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, BatchNorm) and module.running_mean is not None
    }
    moments = {name: HalfMoments() for name in layers}
    if not layers:
        return []
    with _watching(backbone, layers, moments), torch.no_grad():
        for inputs in batches:
            backbone(*inputs)
    owners = {buffer: stage.name for stage in stages for buffer in stage.buffers}
    found: list[LayerDistance] = []
    for name, layer in layers.items():
        if int(moments[name].images.min()) == 0:
            continue  # a layer that the model does not run
        assert layer.running_mean is not None and layer.running_var is not None
        means, deviations = moments[name].halves()
        value = distance(
            means,
            deviations,
            source_mean=layer.running_mean.double().cpu(),
            source_variance=layer.running_var.double().cpu(),
            eps=layer.eps,
        )
        found.append(LayerDistance(name, owners[f"{name}.running_mean"], value))
    order = [stage.name for stage in stages]
    return sorted(found, key=lambda layer: order.index(layer.stage))  # within a stage as the model lists them


Moments = Mapping[str, HalfMoments]


@contextmanager
def _watching(
    backbone: nn.Module, layers: Mapping[str, nn.Module], moments: Mapping[str, HalfMoments]
) -> Iterator[None]:
    """Eval mode, with the inputs of some layers added up."""
    modes = {module: module.training for module in backbone.modules()}
    handles = [layer.register_forward_pre_hook(_adds_to(moments[name])) for name, layer in layers.items()]
    backbone.eval()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode


def _adds_to(moments: HalfMoments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        moments.add(inputs[0])

    return hook
