"""How stages that nothing trains are run: as they are, or compiled, which proves first that it changes nothing."""

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_lightning.backbones.backbone import Backbone
from tl_lightning.backbones.macs import count_macs
from tl_lightning.core.console import console
from tl_lightning.errors import UserError

EngineName = Literal["eager", "openvino", "inductor"]
EngineChoice = Literal["auto", "eager", "openvino", "inductor"]

ROWS = 8  # samples at once: what a sample gives must not depend on how many come with it
PAYS_FROM = 2e11  # multiplications: 500 images of EfficientNet-Lite0 at 224 px, twice what compiling it costs
FURTHER = 1.25  # times as far from float32 as the run's own arithmetic is what an engine may be
ROUNDING = {torch.bfloat16: 2**-9, torch.float16: 2**-12, torch.float32: 1e-5}  # of one result, relative
INSTALL = "pip install 'tl_lightning[openvino]'"


class Refused(Exception):
    """An engine cannot take a model, or gives something else than it; says why."""


class Runner(Protocol):
    """Computes what a module computes, with a row per sample."""

    def __call__(self, *inputs: Tensor) -> Any:  # noqa: ANN401 - a tensor or a tuple of them, as the module gives
        """What the module gives for its inputs."""


def pick_engine(asked: EngineChoice, backbone: Backbone, *, samples: int, device: torch.device) -> EngineName:
    """Decides how a module is run; by hardware and work alone, so that the same run is always computed alike.

    Args:
        asked: What the user wants; ``auto`` compiles where that pays for itself.
        backbone: What is run.
        samples: How many there are to go through it.
        device: Where it runs.

    Raises:
        UserError: If what was asked for is unknown or not installed.
    """
    if asked not in get_args(EngineChoice):
        raise UserError(f"engine is {asked}; it must be one of {', '.join(get_args(EngineChoice))}")
    installed = find_spec("openvino") is not None
    if asked == "openvino" and not installed:
        raise UserError(f"engine openvino needs the package openvino: {INSTALL}")
    if asked != "auto":
        return asked
    module = backbone.module
    possible = installed and device.type == "cpu" and next(module.parameters()).dtype == torch.float32
    return "openvino" if possible and samples * count_macs(module, backbone.preprocess) >= PAYS_FROM else "eager"


def engine_key(engine: EngineName) -> list[str]:
    """What tells the numbers of an engine from those of another, for the key of a cache; empty for ``eager``.

    Args:
        engine: Which.
    """
    if engine == "eager":
        return []
    return [engine, version("openvino")] if engine == "openvino" else [engine]


class Compiled:
    """A module run by an engine, built for the sizes of the first samples; by the module itself where that cannot be.

    To be called in eval mode, without gradients and in the precision of the run, as long as the weights stay as they
    are. Samples of another size have an engine of their own.

    Attributes:
        engine: What runs it; ``eager`` from the moment on that an engine was refused.

    Args:
        module: What is run.
        engine: By what.
        say: Whether to print what was built, or why not.
    """

    def __init__(self, module: nn.Module, engine: EngineName, *, say: bool = True) -> None:
        self.engine = engine
        self._module, self._say = module, say
        self._runners: dict[tuple[torch.Size, ...], Runner] = {}

    def __call__(self, *inputs: Tensor) -> Any:  # noqa: ANN401 - a tensor or a tuple of them, as the module gives
        """What the module gives for its inputs."""
        sizes = tuple(tensor.shape[1:] for tensor in inputs)
        if self.engine != "eager" and sizes not in self._runners:
            try:
                self._runners[sizes] = build_engine(self.engine, self._module, inputs, say=self._say)
            except Refused as reason:
                if self._say:
                    say_refused(self.engine, reason)
                self.engine, self._runners = "eager", {}
        return self._runners.get(sizes, self._module)(*inputs)


def say_refused(engine: EngineName, reason: Refused) -> None:
    """Prints that the module itself goes on in the place of an engine.

    Args:
        engine: Which.
        reason: Why.
    """
    console.print(f"engine     not {engine}: {reason}; going on without", style="yellow")


def build_engine(engine: EngineName, module: nn.Module, inputs: Sequence[Tensor], *, say: bool = True) -> Runner:
    """Compiles a module, and compares what it gives for real samples with float32, and with the module as it is.

    Args:
        engine: By what; not ``eager``.
        module: In eval mode; called without gradients and in the precision of the run.
        inputs: Of some samples; all others have to have their sizes.
        say: Whether to print what was built.

    Raises:
        Refused: If the engine cannot take the module, or is further from float32 than `FURTHER` times the run's own
            precision.
    """
    begun = time.perf_counter()
    few = [full(tensor[:ROWS]) for tensor in inputs]
    kind = few[0].device.type
    own = module(*[tensor.clone() for tensor in few])  # a module may work in place
    mixed = torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False):
        exact = module(*[tensor.clone() for tensor in few]) if mixed else own
    precision = torch.get_autocast_dtype(kind) if mixed else next(module.parameters()).dtype
    usual = _furthest(own, exact)
    # What an engine rounds otherwise than torch, it need not round at all: in float32 it is still the faster one.
    for tried in dict.fromkeys((precision, torch.float32 if mixed else precision)):
        runner = _compile(engine, module, few, own, tried)
        distance = _furthest(runner(*few), exact)
        if distance <= FURTHER * usual + ROUNDING.get(tried, 0.0):
            break
    else:
        raise Refused(f"what it computes is {distance:.1e} off float32, and eager only {usual:.1e}")
    if say:
        name = str(tried).removeprefix("torch.")
        console.print(
            f"engine     {engine} in {name}, built in {time.perf_counter() - begun:.1f} s: "
            f"{distance:.1e} off float32 (eager {usual:.1e})"
        )
    return runner


def _compile(
    engine: EngineName,
    module: nn.Module,
    few: Sequence[Tensor],
    like: Any,  # noqa: ANN401 - as the module gives
    precision: torch.dtype,
) -> Runner:
    building: type[_OpenVino] | type[_Inductor] = _OpenVino if engine == "openvino" else _Inductor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about what the comparison looks at
        try:
            runner = building(module, few, like, precision)
            runner(*few)
        except Refused:
            raise
        except Exception as error:  # whatever a compiler throws at a model that it does not know
            raise Refused(" ".join(str(error).split())[:200] or type(error).__name__) from error
    return runner


def full(tensor: Tensor) -> Tensor:
    """Rows as a whole number of times `ROWS`, the last one repeated.

    Args:
        tensor: At least one row.
    """
    missing = -len(tensor) % ROWS
    if not missing:
        return tensor
    filled = tensor[torch.arange(len(tensor) + missing).clamp(max=len(tensor) - 1)]
    return filled.contiguous(memory_format=torch.channels_last) if _is_channels_last(tensor) else filled


class _OpenVino:
    """Intel's engine: `ROWS` samples at once on each of its streams."""

    def __init__(self, module: nn.Module, few: Sequence[Tensor], like: Any, precision: torch.dtype) -> None:  # noqa: ANN401
        if few[0].device.type != "cpu":
            raise Refused("it runs on a CPU")
        if precision not in (torch.float32, torch.bfloat16) or next(module.parameters()).dtype != torch.float32:
            raise Refused(f"the weights are {next(module.parameters()).dtype}")
        # Importing openvino would leave a client's number in the home folder and report what is done.
        sys.modules.setdefault("openvino_telemetry", cast("Any", None))
        import openvino
        from openvino import preprocess
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        # As convert_model does, but for tracing once and not twice.
        with torch.autocast("cpu", enabled=False):
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                module, tuple(few), check_trace=False, strict=False
            )
            decoder = TorchScriptPythonDecoder(traced, example_input=tuple(few))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
        model.reshape({place: list(tensor.shape) for place, tensor in enumerate(few)})
        self._like = _listed(like)
        self._alone = isinstance(like, Tensor)
        self._inputs_last, self._outputs_last = (
            [_is_channels_last(each) for each in side] for side in (few, self._like)
        )
        prepared = preprocess.PrePostProcessor(model)
        for side, lasts in ((prepared.input, self._inputs_last), (prepared.output, self._outputs_last)):
            for place in (place for place, last in enumerate(lasts) if last):
                side(place).tensor().set_layout(openvino.Layout("NHWC"))
                side(place).model().set_layout(openvino.Layout("NCHW"))
        compiled = openvino.Core().compile_model(
            prepared.build(),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if precision == torch.bfloat16 else "f32",
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )
        self._queue = openvino.AsyncInferQueue(compiled, int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))
        self._queue.set_callback(self._collect)
        self._sizes = [tuple(output.shape[1:]) for output in compiled.outputs]
        self._outputs: list[NDArray[np.float32]] = []

    def __call__(self, *inputs: Tensor) -> Any:  # noqa: ANN401 - as the module gives
        filled = [full(tensor) for tensor in inputs]
        rows = len(filled[0])
        arrays = [
            (tensor.permute(0, 2, 3, 1) if last else tensor).contiguous().numpy()
            for tensor, last in zip(filled, self._inputs_last, strict=True)
        ]
        self._outputs = [np.empty((rows, *size), dtype=np.float32) for size in self._sizes]
        for start in range(0, rows, ROWS):
            self._queue.start_async([array[start : start + ROWS] for array in arrays], start)
        self._queue.wait_all()
        made = []
        for output, last, like in zip(self._outputs, self._outputs_last, self._like, strict=True):
            tensor = torch.from_numpy(output[: len(inputs[0])])
            made.append((tensor.permute(0, 3, 1, 2) if last else tensor).to(like.dtype))
        self._outputs = []
        return made[0] if self._alone else tuple(made)

    def _collect(self, request: Any, start: int) -> None:  # noqa: ANN401 - openvino's
        for place, output in enumerate(self._outputs):
            output[start : start + ROWS] = request.get_output_tensor(place).data


class _Inductor:
    """Torch's own compiler, with CUDA graphs on a GPU; `ROWS` samples at once would not fill one, so whole batches."""

    def __init__(self, module: nn.Module, few: Sequence[Tensor], like: Any, precision: torch.dtype) -> None:  # noqa: ANN401
        options: dict[str, Any] = {"mode": "reduce-overhead"} if few[0].is_cuda else {"options": {"freezing": True}}
        self._compiled: Callable[..., Any] = torch.compile(module, dynamic=False, **options)
        self._kind, self._precision = few[0].device.type, precision

    def __call__(self, *inputs: Tensor) -> Any:  # noqa: ANN401 - as the module gives
        count = len(inputs[0])
        mixed = torch.is_autocast_enabled(self._kind) and self._precision != torch.float32
        with torch.autocast(self._kind, enabled=mixed):
            made = self._compiled(*[full(tensor) for tensor in inputs])
        cut = [tensor[:count].clone() for tensor in _listed(made)]  # CUDA graphs write over what they gave
        return cut[0] if isinstance(made, Tensor) else tuple(cut)


def _listed(outputs: Any) -> list[Tensor]:  # noqa: ANN401 - a tensor or a tuple of them
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _furthest(made: Any, right: Any) -> float:  # noqa: ANN401 - as the module gives
    return max(_distance(one, other) for one, other in zip(_listed(made), _listed(right), strict=True))


def _distance(made: Tensor, right: Tensor) -> float:
    """How far a result is from the right one, relative to its size; infinite where it is of another form."""
    if made.shape != right.shape or not bool(made.isfinite().all()):
        return float("inf") if bool(right.isfinite().all()) else 0.0
    difference, size = (made.double() - right.double()).norm(), right.double().norm()
    return float(difference / size) if size else float(difference)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
