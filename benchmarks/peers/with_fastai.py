"""fastai, as its documentation says: `vision_learner` with `fit_one_cycle` while frozen, or `fine_tune`.

Words: ``head`` or ``full``, then ``default``, ``fast`` (bfloat16 where the machine has it, and channels_last) or
``frozen_bn`` (fast, and BatchNorm frozen with the rest, which fastai does not do by itself).
"""

import warnings
from pathlib import Path

warnings.simplefilter("ignore")  # fastai imports old ways of torch and pandas

import torch  # noqa: E402
from fastai.callback import schedule  # noqa: E402, F401 - gives the learner `fit_one_cycle` and `fine_tune`
from fastai.callback.channelslast import ChannelsLast  # noqa: E402
from fastai.callback.core import Callback  # noqa: E402
from fastai.data.block import CategoryBlock, DataBlock  # noqa: E402
from fastai.data.core import DataLoaders  # noqa: E402
from fastai.data.transforms import IndexSplitter, Normalize  # noqa: E402
from fastai.learner import Learner  # noqa: E402
from fastai.metrics import accuracy  # noqa: E402
from fastai.torch_core import set_seed, to_float  # noqa: E402
from fastai.vision.augment import CropPad, Resize, ResizeMethod  # noqa: E402
from fastai.vision.data import ImageBlock  # noqa: E402
from fastai.vision.learner import vision_learner  # noqa: E402
from PIL import Image  # noqa: E402

from peers.measure import Attempt, now  # noqa: E402
from peers.task import Task  # noqa: E402


class Reduced(Callback):
    """Computes in bfloat16; fastai's own `to_bf16` knows CUDA only."""

    order = 10

    def before_batch(self) -> None:
        """Enters autocast."""
        self.autocast = torch.autocast(self.dls.device.type, torch.bfloat16)
        self.autocast.__enter__()

    def after_pred(self) -> None:
        """Leaves it, so that the loss is computed in float32."""
        self.autocast.__exit__(None, None, None)
        self.learn.pred = to_float(self.pred)


class Watch(Callback):
    """Times training epochs without their validation, and counts what is trained on."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.images = 0

    def before_train(self) -> None:
        """Starts the watch."""
        self.begun, self.images = now(), 0

    def after_batch(self) -> None:
        """Counts."""
        self.images += len(self.yb[0]) if self.training else 0

    def after_train(self) -> None:
        """Stops the watch."""
        self.seconds.append(now() - self.begun)


def loaders(task: Task) -> DataLoaders:
    """The images, decoded whenever they are asked for by as many workers as there are threads."""
    labels = {Path(path): label for split in ("train", "val") for path, label in task.rows(split)}
    count = len(task.rows("train"))
    resample = (Image.Resampling[task.interpolation.upper()], Image.Resampling.NEAREST)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_y=lambda path: labels[path],
        splitter=IndexSplitter(range(count, len(labels))),
        item_tfms=[Resize(task.resized, method=ResizeMethod.Crop, resamples=resample), CropPad(task.size)],
        batch_tfms=[Normalize.from_stats(task.mean, task.std)],
    )
    return block.dataloaders(list(labels), bs=task.batch, num_workers=task.threads)


def learner(task: Task, data: DataLoaders, variant: str) -> Learner:
    """The learner and head of `vision_learner` over timm's model with our weights, frozen."""
    learn = vision_learner(
        data, task.model, pretrained=False, normalize=False, metrics=accuracy, train_bn=variant != "frozen_bn"
    )
    learn.model[0].model.load_state_dict(torch.load(task.folder / "weights.pt", weights_only=True))
    learn.freeze()
    if variant != "default":
        learn.add_cbs([ChannelsLast(), Reduced()] if task.reduced else [ChannelsLast()])
    return learn


def main() -> None:
    """Trains once."""
    attempt = Attempt()
    task, result, (way, variant) = attempt.task, attempt.result, attempt.words
    set_seed(task.seed)
    data, watch = loaders(task), Watch()
    learn = learner(task, data, variant)
    learn.add_cb(watch)
    with learn.no_bar(), learn.no_logging():
        if way == "head":
            learn.fit_one_cycle(task.epochs)
        else:
            learn.fine_tune(task.full_epochs)
        attempt.done()
        # `fine_tune` begins with an epoch that is frozen.
        result.epochs_s = watch.seconds if way == "head" else watch.seconds[1:]
        result.epoch_images = watch.images
        result.parts = {"training": sum(watch.seconds)}
        result.val_accuracy = float(learn.recorder.values[-1][-1])
        probabilities, _ = learn.get_preds(dl=data.test_dl([Path(path) for path, _ in task.rows("test")]))
    vocabulary = list(data.vocab)
    assert vocabulary == task.classes
    attempt.report(probabilities.argmax(1).tolist())


if __name__ == "__main__":
    main()
