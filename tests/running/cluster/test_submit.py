"""``tl submit`` without a cluster: what it writes, what it finds wrong, and what its script decides."""

import inspect
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import TINY, write_tiny

from tl_lightning.cli import main
from tl_lightning.errors import UserError
from tl_lightning.running.cluster.resources import Resources, seconds
from tl_lightning.running.cluster.slurm import check_resources
from tl_lightning.running.cluster.work import FOLDS

GOLDEN = """\
#!/bin/bash
# tl submit slurm --nodes 2 --gpus_per_node 4 --cpus_per_process 8 --memory 64G --time 1-12 --partition gpu --dry_run \
-- fit --config elpv.yaml --model.lr 1e-3
#SBATCH --job-name=elpv
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=4
#SBATCH --mem=64G
#SBATCH --time=1-12
#SBATCH --partition=gpu
#SBATCH --comment={cwd}/runs/elpv-1
#SBATCH --chdir={cwd}
#SBATCH --output=slurm/elpv-%j.log
#SBATCH --open-mode=append
#SBATCH --export=ALL
#SBATCH --signal=USR1@120
#SBATCH --requeue

export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-8}}

# Where the processes find each other: the first node, by its name or the address that SLURM has of it.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
getent hosts "$first" > /dev/null ||
    first=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')
export MASTER_ADDR="$first" MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))

fit=(--config elpv.yaml --model.lr 1e-3)
trainer=(--trainer.num_nodes 2 --trainer.devices 4 --trainer.accelerator gpu)
run=runs/elpv-1 own=()

# Decided once, before any process starts: what has ended is left alone, what was interrupted goes on.
if grep -qs '^  "status": "completed"' "$run/summary.json"; then
    echo "$run is complete already"
    exit 0
elif [ -f "$run/config.yaml" ]; then  # without a checkpoint yet, it begins anew
    command=(resume --run_dir "$run" "${{trainer[@]}}")
else
    rm -f "$run/wandb_run_id" "$run"/.*.tmp  # of a start that was cut off
    command=(fit "${{fit[@]}}" "${{own[@]}}" "${{trainer[@]}}" --run_dir "$run")
fi

srun --kill-on-bad-exit=1 --cpus-per-task=8 {python} -m tl_lightning "${{command[@]}}"
code=$?
# 138 is pre-emption, behind a checkpoint: queued again, the job comes back to the decision above.
if [ "$code" -eq 138 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt 100 ]; then
    # Of an array this task alone: the number of its last one is that of the whole array.
    task=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
    exec scontrol requeue "${{task:-$SLURM_JOB_ID}}"
fi
exit "$code"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("elpv.yaml").write_text("trainer: {devices: auto}\ndata: {folds: 3}\n")
    return tmp_path


def install(folder, monkeypatch, **commands):
    """Puts stand-ins of SLURM's commands before all others; each gives what its lines of shell say."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, lines in commands.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{lines}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def dry(capsys, *args):
    assert main(["submit", "slurm", *args[: args.index("--")], "--dry_run", *args[args.index("--") :]]) == 0
    return capsys.readouterr().out


def mistake(capsys, *args):
    assert main(["submit", *args]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said.removeprefix("tl submit: ").rstrip()


def test_the_script_of_two_nodes_with_gpus(here, capsys):
    resources = "--nodes 2 --gpus_per_node 4 --cpus_per_process 8 --memory 64G --time 1-12 --partition gpu".split()
    shown = dry(capsys, *resources, "--", "fit", "--config", "elpv.yaml", "--model.lr", "1e-3")
    assert shown == GOLDEN.format(cwd=Path.cwd(), python=sys.executable)
    assert [path.name for path in here.iterdir()] == ["elpv.yaml"]


def test_names_with_spaces_and_quotes_stay_whole(here, capsys, monkeypatch):
    place = here / "my runs"
    place.mkdir()
    monkeypatch.chdir(place)
    Path("load modules.sh").write_text("")
    setup = ("--setup", "load modules.sh", "--setup", "module load cuda")
    shown = dry(capsys, *setup, "--logs", "the logs", "--", "fit", "--data.source", "my 'images'", "--run_dir", "a b")
    lines = shown.splitlines()
    for line in (
        f'#SBATCH --chdir="{place}"',
        '#SBATCH --output="the logs/run-%j.log"',
        "fit=(--data.source 'my '\"'\"'images'\"'\"'')",
        "run='a b' own=()",
        f". '{place}/load modules.sh'",
        "module load cuda",
    ):
        assert line in lines
    assert "MASTER_ADDR" not in shown  # one process meets nobody
    assert subprocess.run(["bash", "-n"], input=shown, text=True, check=False).returncode == 0


def test_each_seed_is_a_task_of_an_array(here, capsys):
    shown = dry(capsys, "--seeds", "3,20", "--at_once", "1", "--", "fit", "--config", "elpv.yaml").splitlines()
    assert "#SBATCH --array=0-1%1" in shown
    assert "#SBATCH --output=slurm/elpv-%A_%a.log" in shown
    assert "    0) run=runs/elpv-seeds-1/seed-3 own=(--seed_everything 3) ;;" in shown
    assert "    1) run=runs/elpv-seeds-1/seed-20 own=(--seed_everything 20) ;;" in shown


def test_each_fold_is_a_task_and_the_scores_come_after(here, capsys):
    shown = dry(capsys, "--gpus_per_node", "2", "--", "crossval", "--config", "elpv.yaml", "--run_dir", "cv")
    folds, scores = shown.split("#!/bin/bash\n")[1:]
    assert "    2) run=cv/fold-2 own=(--data.fold 2) ;;\nesac\n" in folds
    assert "fit=(--config elpv.yaml)\ntrainer=(--trainer.num_nodes 1 --trainer.devices 2" in folds
    assert "command=(crossval --config elpv.yaml --run_dir cv)\n" in scores
    assert "#SBATCH --job-name=elpv-score\n#SBATCH --nodes=1\n#SBATCH --ntasks-per-node=1\n" in scores


def test_each_run_of_a_comparison_is_a_task_and_the_comparison_comes_after(here, capsys):
    Path("elpv.yaml").write_text("seed_everything: 4\n")
    options = ["--seeds", "2", "--strategies", "scratch,full", "--fractions", "0.5,1", "--more", "50"]
    shown = dry(capsys, "--gpus_per_node", "1", "--", "compare", "--config", "elpv.yaml", *options, "--run_dir", "c")
    runs, compared = shown.split("#!/bin/bash\n")[1:]
    assert "#SBATCH --array=0-7\n" in runs
    assert "    1) run=c/full-0.5-seed4 own=(--phases full --data.labelled_fraction 0.5 --seed_everything 4) ;;" in runs
    assert "    7) run=c/full-seed5 own=(--phases full --data.labelled_fraction 1 --seed_everything 5) ;;" in runs
    trainer = "--trainer.num_nodes 1 --trainer.devices 1 --trainer.accelerator gpu"
    assert f"fit=(--config elpv.yaml {trainer})\ntrainer=()\n" in runs  # as the comparison has them
    assert f"command=(compare --config elpv.yaml {' '.join(options)} {trainer} --run_dir c)\n" in compared


def test_without_a_number_of_folds_there_are_as_many_as_the_data_module_makes():
    from tl_lightning.data.base import TransferDataModule

    assert inspect.signature(TransferDataModule).parameters["folds"].default == FOLDS


def test_each_worker_of_a_sweep_is_a_task(here, capsys):
    command = ["${interpreter}", "-m", "tl_lightning", "fit", "--config=elpv.yaml", "--config", "${args_json_file}"]
    metric, parameters = {"name": "val/loss", "goal": "minimize"}, {"model.lr": {"values": [0.1, 0.2]}}
    sweep = {"method": "grid", "metric": metric, "parameters": parameters, "command": command}
    Path("rates.yaml").write_text(yaml.safe_dump(sweep))
    shown = dry(capsys, "--", "sweep", "rates.yaml", "--workers", "3", "--run_cap", "2")
    assert "#SBATCH --array=0-2\n" in shown
    assert "command=(sweep rates.yaml --storage runs/rates-sweep-1/journal.log --run_cap 2 --seed 0)\n" in shown
    said = mistake(capsys, "slurm", "--nodes", "2", "--dry_run", "--", "sweep", "rates.yaml")
    assert said.startswith("a worker of a sweep is one process on one node")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("slurm --nodes 2 fit --config elpv.yaml", "say what to run behind --, such as: tl submit slurm"),
        ("slurm --nodes 2", "say what to run behind --, such as: tl submit slurm --nodes 2 -- fit --config FILE"),
        ("slurm --node 2 -- fit", "unrecognized arguments: --node; did you mean --nodes?"),
        (
            "slurm -- fitt",
            "tl fitt cannot be submitted; did you mean fit? (what can: fit, resume, crossval, compare, sweep)",
        ),
        ("slurm -- rank", "tl rank cannot be submitted (what can: fit, resume, crossval, compare, sweep)"),
        ("slurm --time soon -- fit", "--time is 'soon'; write minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"),
        ("slurm --time 1 -- fit", "--signal_before is 120 s; it must be less than --time 1, and at most 65535"),
        ("slurm --nodes 0 -- fit", "--nodes is 0; it must be 1 or more"),
        ("slurm --memory 16GB -- fit", "--memory is '16GB'; write a number with K, M, G or T, such as 16G"),
        ("slurm --gpus_per_node 4 --processes_per_node 2 -- fit", "--processes_per_node is 2, but --gpus_per_node 4"),
        ("slurm --job_name bash -- fit", "--job_name is 'bash'; use letters, digits, points and dashes, but not"),
        ("slurm --seeds 1,1 -- fit", "--seeds is 1,1: a seed stands there twice"),
        ("slurm --seeds 1 -- fit --seed_everything 2", "--seed_everything contradicts --seeds"),
        ("slurm --seeds 1 -- resume --run_dir x", "--seeds makes a tl fit for each seed; tl resume takes none"),
        ("slurm -- resume", "tl resume needs --run_dir, the folder of the run that stopped"),
        ("slurm -- resume --run_dir x", "there is no run folder x"),
        ("slurm -- fit --help", "--help trains nothing, so there is nothing to submit: tl fit --help"),
        ("slurm --nodes 2 -- fit --trainer.num_nodes 3", "trainer.num_nodes is 3, but --nodes 2: leave"),
        ("slurm --gpus_per_node 2 -- fit --trainer.devices=4", "trainer.devices is 4, but --gpus_per_node 2: leave"),
        ("slurm -- fit --config four.yaml", "trainer.devices is 4, but --processes_per_node 1: leave"),
        ("slurm -- fit --trainer.accelerator gpu", "trainer.accelerator is gpu, but --gpus_per_node 0: change"),
        ("slurm -- fit --config elp.yaml", "--config elp.yaml: there is no such file; did you mean elpv.yaml?"),
        ("slurm -- fit elpv.yaml", "'elpv.yaml' belongs to no option; write --key=value"),
        ("slurm -- crossval --data.folds 1", "data.folds is 1; it must be 2 or more"),
        ("slurm --processes_per_node 2 -- compare", "a run of tl compare trains in one process: leave --nodes and"),
        ("slurm -- compare --strategies full", "--reference scratch is not among the strategies (--strategies: full)"),
        ("slurm -- compare --phases full", "--phases has no effect here: the strategies say what trains"),
        ("slurm -- compare --more 0", "--more is 0; it must be 1 or more labels"),
        ("slurm -- fit --config syntax-error.yaml", "syntax-error.yaml is no valid YAML: line 2, column 1"),
        ("slurm -- compare --seed_everything x", "seed_everything is x; it must be a whole number, 0 or more"),
        ("slurm --seeds 1,2 -- compare", "--seeds makes a tl fit for each seed; tl compare takes none: leave it out"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, args, said):
    Path("four.yaml").write_text("trainer: {devices: 4}\n")
    Path("syntax-error.yaml").write_text("trainer: {devices: [\n")
    words = args.split()
    assert mistake(capsys, words[0], "--dry_run", *words[1:]).startswith(said)


def test_without_slurm_nothing_is_queued(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    said = mistake(capsys, "slurm", "--", "fit", "--config", "elpv.yaml")
    assert said.startswith("there is no sbatch on this machine: submit on a login node of the cluster")


SQUEUE = "echo '7|/elsewhere'"
SINFO = "printf 'main*|2|1-00:00:00\\nmain*|1|1-00:00:00\\nlong|8|infinite\\n'"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--partition lang", "--partition lang: the cluster has none of that name; did you mean long? (main, long)"),
        ("--nodes 4", "--nodes is 4, but partition main has 3 nodes"),
        ("--time 2-0", "--time is 2-0, but in partition main a job may take 1440 min"),
    ],
)
def test_what_the_cluster_lacks_is_said_before_anything_is_queued(here, capsys, monkeypatch, options, said):
    install(here, monkeypatch, sinfo=SINFO, squeue=SQUEUE, sbatch="touch queued")
    assert mistake(capsys, "slurm", *options.split(), "--", "fit", "--config", "elpv.yaml") == said
    assert not Path("queued").exists()


def test_one_of_several_partitions_has_to_have_room(here, monkeypatch):
    install(here, monkeypatch, sinfo=SINFO)
    check_resources(Resources(nodes=4, partition="main,long"))
    with pytest.raises(UserError, match="--nodes is 9, but partition main has 3 nodes"):
        check_resources(Resources(nodes=9, partition="main,long"))


def test_what_is_queued_is_said_in_a_line_and_every_submission_has_its_own_folder(here, capsys, monkeypatch):
    write_tiny(here)
    install(here, monkeypatch, sinfo=SINFO, squeue=SQUEUE, sbatch='echo "$@" >> queued; echo 4$(wc -l < queued)')
    for number in (1, 2):
        assert main(["submit", "slurm", "--nodes", "3", "--", "fit", *TINY]) == 0
        batch, line = capsys.readouterr().out.splitlines()
        assert batch == "batch      12 images a step: 4 in each of 3 processes"
        log, folder = f"slurm/run-4{number}.log", f"runs/run-{number}"
        assert line == f"job 4{number}: log {log}, folder {folder}; scancel 4{number} ends it"
        assert list(Path(folder).iterdir()) == []
    assert Path("queued").read_text() == "--parsable slurm/run-1.sh\n--parsable slurm/run-2.sh\n"
    said = mistake(capsys, "slurm", "--", "fit", *TINY, "--model.lrr", "1")
    assert said == "unknown key 'model.lrr'; did you mean model.lr, model.loss, model.l2_sp?"
    install(here, monkeypatch, sbatch="echo sbatch: error: no money >&2; exit 1")
    assert mistake(capsys, "slurm", "--", "fit", *TINY) == "SLURM refuses: sbatch: error: no money"
    assert sorted(path.name for path in Path("runs").iterdir()) == ["run-1", "run-2"]


def test_what_would_be_refused_after_all_runs_is_refused_before_the_first(here, capsys, monkeypatch):
    write_tiny(here)
    install(here, monkeypatch, sinfo=SINFO, squeue=SQUEUE, sbatch="touch queued")
    for args, said in (
        (["compare", *TINY, "--test", "false"], "test is false, but tl compare compares what runs predict for test"),
        (["crossval", *TINY, "--test", "false"], "test is false, but tl crossval compares what runs predict for test"),
        (["crossval", *TINY, "--data.on_leak", "move"], "data.on_leak move would leave images untested"),
        (["compare", *TINY, "--fractions", "0.0001,1"], "label 'dog' is in the val split of data.split 'stratified'"),
        (["compare", *TINY, "--data.test_fraction", "0"], "images has no test split to compare on; give data.test"),
    ):
        assert mistake(capsys, "slurm", "--", *args).startswith(said)
    assert not Path("queued").exists()


def test_what_only_gpus_can_is_submitted_from_where_there_are_none(here, capsys, monkeypatch):
    write_tiny(here)
    install(here, monkeypatch, sinfo=SINFO, squeue=SQUEUE, sbatch="echo 5")
    fit = ["fit", *TINY, "--trainer.accelerator", "gpu", "--trainer.precision", "16-mixed"]
    assert main(["submit", "slurm", "--gpus_per_node", "2", "--", *fit, "--trainer.sync_batchnorm", "true"]) == 0


def test_a_folder_has_one_job(here, capsys, monkeypatch):
    write_tiny(here)
    queued = f"echo '12|{Path.cwd()}/one'; echo '11|{Path.cwd()}/one'; echo '12|{Path.cwd()}/one'; {SQUEUE}"
    install(here, monkeypatch, sinfo=SINFO, squeue=queued, sbatch="echo 13")
    for folder in ("one", "one/fold-2", "../" + Path.cwd().name + "/one"):
        said = mistake(capsys, "slurm", "--", "fit", *TINY, "--run_dir", folder)
        assert said == f"{Path(folder).resolve()} belongs to what is queued already; scancel 11 12 ends that"
        assert not Path(folder).exists()
    assert main(["submit", "slurm", "--", "fit", *TINY, "--run_dir", "two"]) == 0
    assert f"#SBATCH --comment={Path.cwd()}/two\n" in Path("slurm/run-1.sh").read_text()


def test_a_dry_run_imports_no_torch(here):
    code = (
        "import sys; from tl_lightning.cli import main; "
        "main('submit slurm --dry_run -- fit --config elpv.yaml'.split()); "
        "print({'torch', 'numpy', 'optuna'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "set()"


@pytest.fixture
def script(here, capsys, monkeypatch):
    """A script, and SLURM's commands in its place; gives what they were asked, and the exit code."""
    install(
        here, monkeypatch, srun='echo srun "${@:4}" >> asked; exit ${CODE:-0}', scontrol='echo scontrol "$@" >> asked'
    )
    Path("job.sh").write_text(dry(capsys, "--requeues", "3", "--", "fit", "--config", "elpv.yaml", "--run_dir", "r"))
    Path("r").mkdir()

    def run(**environment):
        Path("asked").unlink(missing_ok=True)
        ended = subprocess.run(["bash", "job.sh"], env={**os.environ, "SLURM_JOB_ID": "9", **environment}, check=False)
        return ended.returncode, Path("asked").read_text().splitlines() if Path("asked").exists() else []

    return run


FIRST = "srun tl_lightning fit --config elpv.yaml --trainer.num_nodes 1 --trainer.devices 1 --run_dir r"
AGAIN = "srun tl_lightning resume --run_dir r --trainer.num_nodes 1 --trainer.devices 1"


def test_a_job_begins_goes_on_or_leaves_alone_what_is_there(script):
    Path("r/wandb_run_id").touch()
    Path("r/.config.yaml.ab12.tmp").touch()
    assert script() == (0, [FIRST])
    assert list(Path("r").iterdir()) == []  # tl fit wants an empty folder
    Path("r/config.yaml").touch()
    assert script() == (0, [AGAIN])
    Path("r/summary.json").write_text('{\n  "status": "interrupted",\n  "a": {\n    "status": "completed"\n  }\n}\n')
    assert script() == (0, [AGAIN])
    Path("r/summary.json").write_text('{\n  "status": "completed",\n  "a": 1\n}\n')
    assert script(CODE="1") == (0, [])


def test_only_what_was_preempted_is_queued_again_and_not_for_ever(script):
    assert script(CODE="138") == (0, [FIRST, "scontrol requeue 9"])
    assert script(CODE="138", SLURM_RESTART_COUNT="2") == (0, [FIRST, "scontrol requeue 9"])
    of_array = {"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "2"}  # the last task has the number of the array
    assert script(CODE="138", **of_array) == (0, [FIRST, "scontrol requeue 9_2"])
    assert script(CODE="138", SLURM_RESTART_COUNT="3") == (138, [FIRST])
    assert script(CODE="2") == (2, [FIRST])
    assert script(CODE="143") == (143, [FIRST])


def test_times_are_read_as_slurm_reads_them():
    texts = {"90": 5400, "4:30": 270, "4:00:00": 14400, "1-12": 129600, "1-12:30": 131400, "1-12:30:15": 131415}
    assert {text: seconds(text, "--time") for text in texts} == texts


def test_a_global_batch_that_the_jobs_processes_cannot_share_is_refused_here(here, capsys, monkeypatch):
    write_tiny(here)
    install(here, monkeypatch, sinfo=SINFO, squeue=SQUEUE, sbatch="exit 1")
    said = mistake(capsys, "slurm", "--nodes", "2", "--", "fit", *TINY, "--global_batch", "7")
    assert said == "global_batch is 7, which 2 processes cannot share evenly; 6 or 8 would do"
