"""``tl submit slurm``: checks a job, writes its batch script, and queues it."""

import os
import re
import shlex
import sys
from argparse import Namespace
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tl_lightning.core.console import console
from tl_lightning.core.files import make_folder, numbered, user_path, write_text
from tl_lightning.core.options import OptionParser
from tl_lightning.errors import UserError, shown
from tl_lightning.running.cluster.resources import Resources, add_options, read_resources
from tl_lightning.running.cluster.script import Batch, write_script
from tl_lightning.running.cluster.slurm import cancel, check_folder, check_resources, check_slurm, queue
from tl_lightning.running.cluster.work import Work, plan_work

if TYPE_CHECKING:
    from tl_lightning.experiment.configuration import Configuration

UNSEEN = ("bash", "interactive")  # names of jobs in which Lightning takes itself to be alone


def submit_command(args: list[str]) -> None:
    """``tl submit``: has a cluster run a command of ``tl``.

    Args:
        args: ``slurm``, options, ``--`` and the command.

    Raises:
        UserError: If something is wrong; nothing is queued then.
    """
    place = args.index("--") if "--" in args else len(args)
    words = args[place + 1 :]
    if not words and not {"-h", "--help"} & set(args):
        raise UserError("say what to run behind --, such as: tl submit slurm --nodes 2 -- fit --config FILE")
    options = _parser().parse_args(args[:place])
    resources, name = read_resources(options), options.job_name
    if name is not None and (name in UNSEEN or not re.fullmatch(r"[\w.-]+", name)):
        raise UserError(
            f"--job_name is {name!r}; use letters, digits, points and dashes, but not {' or '.join(UNSEEN)}"
        )
    for key in ("requeues", "at_once"):
        value, least = getattr(options, key), int(key == "at_once")
        if value is not None and value < least:
            raise UserError(f"--{key} is {value}; it must be {least} or more")
    planned = plan_work(words, resources, seeds=options.seeds, keep=False)
    if options.at_once is not None and planned.first.count == 1:
        raise UserError(f"--at_once {options.at_once} is for arrays, and this is one job: leave it out")
    batch = _batch(options, planned, shown(shlex.join(["tl", "submit", *args])))
    if options.dry_run:
        for text in _scripts(batch, resources, planned):
            print(text, end="")
        return
    check_slurm()
    check_resources(resources)
    if batch.folder is not None:
        check_folder(batch.folder)
    _check_fit(planned, resources)
    _submit(batch, resources, plan_work(words, resources, seeds=options.seeds, keep=True))


def _parser() -> OptionParser:
    parser = OptionParser(
        "submit",
        "Has SLURM run tl fit, resume, crossval, compare or sweep: writes a batch script that you can read, and queues "
        "it. A job that is pre-empted is queued again and goes on where it was. What stands behind -- is the command: "
        "tl submit slurm --nodes 2 --gpus_per_node 4 -- fit --config elpv",
    )
    parser.add_argument("system", choices=["slurm"], help="which batch system")
    add_options(parser)
    parser.add_argument("--seeds", help="an array with a tl fit for each seed, such as 0,1,2")
    parser.add_argument("--at_once", type=int, help="of an array, tasks at a time (default: as many as there is room)")
    parser.add_argument("--requeues", type=int, default=100, help="times that it may go on (default: %(default)s)")
    parser.add_argument("--job_name", help="by default the configuration's")
    parser.add_argument("--logs", default="slurm", help="folder of scripts and logs (default: %(default)s)")
    parser.add_argument(
        "--setup", action="append", default=[], help="a line that the script begins with, or a file that it sources"
    )
    parser.add_argument("--dry_run", action="store_true", help="print the script; check and queue nothing")
    return parser


def _batch(options: Namespace, work: Work, typed: str) -> Batch:
    # A file is named in full, as bash looks for a bare name elsewhere first.
    setup = [f". {shlex.quote(os.path.abspath(line))}" if os.path.isfile(line) else line for line in options.setup]
    return Batch(
        name=options.job_name or _job_name(work.name),
        folder=None if work.is_shared else work.folder.resolve(),
        typed=typed,
        cwd=Path.cwd(),
        python=sys.executable,
        logs=user_path(options.logs),
        setup=tuple(setup),
        requeues=options.requeues,
        at_once=options.at_once,
    )


def _job_name(name: str) -> str:
    """What is left of a configuration's name in that of a job, whose directives have no quotes."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "tl"
    return f"{plain}-job" if plain in UNSEEN else plain


def _scripts(batch: Batch, resources: Resources, work: Work) -> list[str]:
    texts = [write_script(batch, resources, work.first)]
    if work.after is not None:  # in one process
        alone = replace(resources, nodes=1, processes_per_node=1, gpus_per_node=min(resources.gpus_per_node, 1))
        texts.append(write_script(replace(batch, name=f"{batch.name}-score"), alone, work.after))
    return texts


def _check_fit(work: Work, resources: Resources) -> None:
    """Builds what a job would build, here and in one process, so that mistakes do not wait in a queue."""
    if not work.checked:
        return
    with console.status("starting"):
        from tl_lightning.experiment.preamble import assemble
        from tl_lightning.training.global_batch import share_out

    here = ["--trainer.num_nodes", "1", "--trainer.devices", "1", "--trainer.accelerator", "cpu"]
    if resources.gpus_per_node:  # of which this machine may have none
        here += ["--trainer.precision", "32-true", "--trainer.sync_batchnorm", "false"]
    for fit in work.checked:
        configuration = assemble([*fit, *here], command="fit", status="checking the configuration", alone=False)
        if work.after is not None:
            _check_after(work.after.args[0], configuration)
    batch = share_out(
        configuration.config.global_batch,
        configuration.datamodule,
        processes=resources.processes,
        accumulate=configuration.trainer.accumulate_grad_batches,
    )
    if resources.processes > 1:
        console.print(f"batch      {batch}")


def _check_after(command: str, configuration: "Configuration") -> None:
    """What a command that comes after the runs would refuse, when all of them have been trained."""
    from tl_lightning.choosing.comparing.plan import check_share
    from tl_lightning.choosing.crossval import draw_folds
    from tl_lightning.experiment.many_runs import check_tested

    check_tested(configuration, command=command)
    if command == "crossval":
        draw_folds(configuration)
    else:
        check_share(configuration, None)


def _submit(batch: Batch, resources: Resources, work: Work) -> None:
    jobs: list[str] = []
    if not work.is_shared:  # by now it is known which folder it is
        batch = replace(batch, folder=work.folder.resolve())
    try:
        make_folder(batch.logs)  # SLURM would make no folder for a log
        for suffix, text in zip(("", "-score"), _scripts(batch, resources, work), strict=False):
            script = _free(batch.logs, f"{batch.name}{suffix}")
            write_text(script, text)
            jobs.append(queue(script, after=jobs[0] if jobs else None, even_if_failed=work.after_failure))
    except BaseException as error:
        for job in jobs:
            with suppress(UserError):  # what came first is said
                cancel(job)
        with suppress(OSError):  # one that holds a run stays
            work.folder.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"--logs {batch.logs}: {error.strerror or error}") from error
        raise
    is_array = work.first.count > 1
    what = f"jobs {jobs[0]} (array of {work.first.count})" if is_array else f"job {jobs[0]}"
    then = f", then {jobs[1]} (tl {work.after.args[0]})" if work.after is not None else ""
    where = f"log {batch.log(jobs[0], is_array=is_array)}, folder {work.folder}"
    console.print(f"{what}{then}: {where}; scancel {' '.join(jobs)} ends {'them' if is_array else 'it'}")


def _free(folder: Path, name: str) -> Path:
    for path in numbered(folder, name, ".sh"):
        with suppress(FileExistsError):  # of another submission, perhaps at this moment
            path.touch(exist_ok=False)
            break
    return path
