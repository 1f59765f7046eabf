"""Sweep files: what is read out of them, and what is said of a mistake."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tl_lightning.errors import UserError
from tl_lightning.running.sweeping.parameters import Bell, Choice, Range
from tl_lightning.running.sweeping.sweep_file import EarlyTermination, read_sweep

COMMAND = [
    "${env}",
    "${interpreter}",
    "-m",
    "tl_lightning",
    "fit",
    "--config=run.yaml",
    "--config",
    "${args_json_file}",
]
GOOD = {
    "method": "random",
    "metric": {"name": "val/macro_f1", "goal": "maximize"},
    "parameters": {"model.lr": {"min": 0.001, "max": 0.1}},
    "command": COMMAND,
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("phases: full\n")
    return tmp_path


def read(**changed):
    content = {key: value for key, value in {**GOOD, **changed}.items() if value != "LEFT OUT"}
    Path("sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_sweep("sweep.yaml")


def message(**changed):
    with pytest.raises(UserError) as error:
        read(**changed)
    text = str(error.value)
    assert text.startswith("sweep.yaml") and "\n" not in text
    return text.removeprefix("sweep.yaml: ")


def parameter(written):
    """One parameter, as YAML reads it."""
    return read(parameters={"model.lr": yaml.safe_load(written)}).parameters["model.lr"]


def refused(written):
    return message(parameters={"model.lr": yaml.safe_load(written)}).removeprefix("parameters.model.lr")


def test_everything_that_a_file_says_is_there():
    early = {"type": "hyperband", "min_iter": 2, "eta": 4}
    sweep = read(
        name="mine",
        method="bayes",
        early_terminate=early,
        run_cap=7,
        project="x",
        entity="y",
        program="z",
        description="",
    )
    assert (sweep.path, sweep.text) == (Path("sweep.yaml"), Path("sweep.yaml").read_text())
    assert (sweep.name, sweep.method, sweep.metric, sweep.goal) == ("mine", "bayes", "val/macro_f1", "maximize")
    assert sweep.parameters == {"model.lr": Range(0.001, 0.1)}
    assert (sweep.fit_args, sweep.run_cap) == (("--config=run.yaml",), 7)
    assert sweep.early_termination == EarlyTermination(min_iter=2, eta=4)
    assert (read().name, read().run_cap, read().early_termination) == ("sweep", None, None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{value: null}", Choice((None,))),
        ("{value: {a: [1, true]}, distribution: constant}", Choice(({"a": [1, True]},))),
        ("{values: [1, 1.5, x, null, [2], {b: 3}]}", Choice((1, 1.5, "x", None, [2], {"b": 3}))),
        ("{values: [a, b], probabilities: [0.25, 0.75]}", Choice(("a", "b"), (0.25, 0.75))),
        ("{min: 1, max: 8}", Range(1, 8, integer=True)),
        ("{min: 0.0, max: 8.0}", Range(0.0, 8.0)),
        ("{distribution: uniform, min: 0, max: 8}", Range(0.0, 8.0)),
        ("{distribution: q_uniform, min: 0.15, max: 0.6, q: 0.1}", Range(0.2, 0.6, step=0.1)),
        ("{distribution: q_uniform, min: 3, max: 9, q: 2}", Range(4, 8, step=2, integer=True)),
        ("{distribution: log_uniform, min: 0, max: 3}", Range(1.0, 20.085536923187668, log=True)),
        ("{distribution: inv_log_uniform, min: 0, max: 3}", Range(0.049787068367863944, 1.0, log=True)),
        ("{distribution: log_uniform_values, min: 1.0e-4, max: 1}", Range(1e-4, 1.0, log=True)),
        ("{distribution: inv_log_uniform_values, min: 1.0e-4, max: 1}", Range(1e-4, 1.0, log=True)),
        ("{distribution: q_log_uniform, min: 0, max: 3, q: 5}", Range(5, 20, log=True, step=5, integer=True)),
        ("{distribution: q_log_uniform_values, min: 0.1, max: 64}", Range(1.0, 64.0, log=True, step=1.0)),
        ("{distribution: normal}", Bell("normal", 0.0, 1.0)),
        ("{distribution: q_normal, mu: 3, q: 2}", Bell("normal", 3, 1.0, step=2)),
        ("{distribution: log_normal, sigma: 0.5}", Bell("log_normal", 0.0, 0.5)),
        ("{distribution: q_log_normal}", Bell("log_normal", 0.0, 1.0, step=1.0)),
        ("{distribution: beta, a: 2, b: 5}", Bell("beta", 2, 5)),
        ("{distribution: q_beta, a: 2, q: 0.25}", Bell("beta", 2, 1.0, step=0.25)),
    ],
)
def test_each_distribution_of_wandb_becomes_one_of_three_kinds(written, expected):
    found = parameter(written)
    assert repr(found) == repr(expected)  # so that 1 is not 1.0 and not True


def test_parameters_come_by_dotted_key_in_the_order_of_the_file():
    nested = {"b": {"value": 1}, "parameters": {"value": 2}, "a": {"parameters": {"c": {"value": 3}}}}
    sweep = read(parameters={"trainer": {"parameters": nested}, "data.x": {"value": 4}, "model": {"value": {}}})
    values = {key: parameter.values[0] for key, parameter in sweep.parameters.items()}
    assert list(values.items()) == [
        *(("trainer.b", 1), ("trainer.parameters", 2), ("trainer.a.c", 3), ("data.x", 4), ("model", {}))
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{min: 1}", ".max is missing beside min; give both"),
        ("{min: 0, max: 0.1}", "W&B refuses; write min: 0.0"),
        ("{min: 0.1, max: 1}", "W&B refuses; write max: 1.0"),
        ("{min: 0.2, max: 0.1}", ": min 0.2 is not below max 0.1"),
        ("{min: 1e-4, max: 0.1}", ".min is '1e-4', which YAML reads as text; write 1.0e-4"),
        ("{min: 0.1, max: 1.5e4}", ".max is '1.5e4', which YAML reads as text; write 1.5e+4"),
        ("{values: [1.0, 1e-4]}", ".values[1] is '1e-4', which YAML reads as text; write 1.0e-4"),
        ("{value: {a: [-1e-4]}}", ".value.a[0] is '-1e-4', which YAML reads as text; write -1.0e-4"),
        ("{value: 2020-01-01}", ".value is 2020-01-01, which YAML reads as a date; put it in quotes"),
        ("{values: []}", ".values is []; it must be a list of one or more, such as [1, 2]"),
        ("{values: 3}", ".values is 3; it must be a list"),
        ("{values: [1, 2], probabilities: [1.0]}", ".probabilities is [1.0]; it must be one number for each"),
        ("{values: [1, 2], probabilities: [0.5, 0.6]}", "they must be 0 or more and add up to 1"),
        ("{values: [1, 2], distribution: uniform}", ": unknown key 'values' (keys: min, max, distribution)"),
        ("{distribution: unifrom, min: 0, max: 1}", ".distribution is 'unifrom'; did you mean uniform"),
        ("{distribution: int_uniform, min: 0.5, max: 3}", "both must be whole numbers"),
        ("{distribution: uniform, min: low, max: 3}", ".min is 'low'; it must be a number"),
        ("{distribution: uniform, min: true, max: 3}", ".min is True; it must be a number"),
        ("{distribution: uniform, max: 3}", ".min is missing, which uniform needs"),
        ("{distribution: log_uniform, min: 1.0e-5, max: 0.1}", "write distribution: log_uniform_values"),
        ("{distribution: log_uniform, min: 16, max: 512}", "write distribution: log_uniform_values"),
        ("{distribution: log_uniform_values, min: 0, max: 0.1}", ".min is 0; log_uniform_values needs it above 0"),
        (
            "{distribution: q_uniform, min: 0.1, max: 0.9, q: 1}",
            ".q is 1, of which no multiple lies between 0.1 and 0.9",
        ),
        ("{distribution: q_uniform, min: 0, max: 9, q: 0}", ".q is 0; it must be above 0"),
        ("{distribution: normal, sigma: -1}", ".sigma is -1; it must be 0 or more"),
        ("{distribution: beta, a: 0}", "both must be above 0"),
        ("{vlaues: [1]}", " has vlaues; did you mean values"),
        ("{}", " is empty; give it value, values, min and max, or a distribution"),
        ("0.1", " is 0.1; write value: 0.1, values: [...], or min and max"),
        ("{parameters: {}, value: 1}", " has value beside parameters"),
    ],
)
def test_a_parameter_that_cannot_be_is_said_with_its_key_and_value(written, said):
    assert said in refused(written)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (None, "parameters is missing"),
        ({}, "parameters is {}"),
        ({"mdoel.lr": {"value": 1}}, "parameters.mdoel.lr: tl fit has no mdoel; did you mean model?"),
        ({"model lr": {"value": 1}}, "parameters: 'model lr' is no key"),
        ({"run_dir": {"value": "x"}}, "every trial has a folder of its own"),
        ({"model.lr": {"value": 1}, "model": {"parameters": {"lr": {"value": 2}}}}, "is there twice"),
    ],
)
def test_keys_of_parameters_are_checked(parameters, said):
    assert said in message(parameters=parameters)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"min": 0.0, "max": 1.0}, "a range of any numbers"),
        ({"distribution": "q_uniform", "min": 0, "max": 4, "q": 2}, "a range of any numbers"),
        ({"values": [1, 2], "probabilities": [0.5, 0.5]}, "values with probabilities"),
    ],
)
def test_a_grid_takes_no_range_of_any_numbers(spec, said):
    expected = f"a grid cannot go through {said}; list the values, or use method: random"
    assert expected in message(method="grid", parameters={"model.lr": spec})
    assert read(method="grid", parameters={"model.lr": {"min": 1, "max": 3}}).parameters["model.lr"].integer


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metod": "grid"}, "unknown key 'metod'; did you mean method?"),
        ({"scheduler": {}}, "scheduler is not supported"),
        ({"metrics": []}, "metrics is not supported: one metric is searched by"),
        ({"job": "x"}, "job is not supported: it belongs to W&B Launch"),
        ({"method": "LEFT OUT"}, "method is missing (valid: grid, random, bayes)"),
        ({"method": "baysian"}, "method is 'baysian'; did you mean bayes? (valid: grid, random, bayes)"),
        ({"run_cap": 0}, "run_cap is 0; it must be a whole number, 1 or more"),
        ({"run_cap": "12"}, "run_cap is '12'"),
        ({"metric": "LEFT OUT"}, "metric is missing, and which trial is best hangs on it"),
        ({"metric": "val/loss"}, "metric is 'val/loss'; write metric: {name: val/macro_f1, goal: maximize}"),
        ({"metric": {"goal": "maximize"}}, "metric.name is missing"),
        ({"metric": {"name": "val/x", "target": 1}}, "metric: unknown key 'target'"),
        (
            {"metric": {"name": "test/loss"}},
            "metric.name is test/loss, but test images decide nothing; write val/loss",
        ),
        ({"metric": {"name": "loss"}}, "metric.name is loss, which is not logged under that name; write val/loss"),
        ({"metric": {"name": "val/x"}}, "metric.goal is missing"),
        ({"metric": {"name": "val/x", "goal": "max"}}, "metric.goal is 'max'"),
        ({"early_terminate": {"type": "envelope"}}, "early_terminate.type is 'envelope'"),
        ({"early_terminate": 3}, "early_terminate is 3"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate.min_iter is missing"),
        ({"early_terminate": {"type": "hyperband", "min_itr": 3}}, "unknown key 'min_itr'; did you mean min_iter"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "early_terminate.min_iter is 0"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1.5}}, "early_terminate.eta is 1.5"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "s": 2}}, "min_iter beside max_iter or s"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "early_terminate.s is None"),
        (
            {"early_terminate": {"type": "hyperband", "max_iter": 2, "s": 1}},
            "early_terminate.max_iter is 2, below eta 3",
        ),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "strict": True}}, "early_terminate.strict is True"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_key_and_value(changed, said):
    assert said in message(**changed)


@pytest.mark.parametrize(
    ("most", "looks", "eta", "first"), [(27, 2, 3, 3), (27, 3, 3, 1), (27, 5, 3, 1), (10, 1, 3, 3), (16, 2, 2, 4)]
)
def test_looks_may_be_counted_from_the_end_as_wandb_does(most, looks, eta, first):
    asked = {"type": "hyperband", "max_iter": most, "s": looks, "eta": eta}
    assert read(early_terminate=asked).early_termination == EarlyTermination(first, eta, most)


def command(*words):
    return {"command": list(words)}


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (("${env}", "tl", "fit", "--config", "${args_json_file}"), ()),
        (("/bin/tl", "fit", "-c", "run.yaml", "-c", "${args_json_file}"), ("-c", "run.yaml")),
        (
            (
                "python",
                "-m",
                "tl_lightning",
                "fit",
                "--ema",
                0.9,
                "--data.x=a b",
                "--soup",
                True,
                "-c",
                "${args_json_file}",
            ),
            ("--ema", "0.9", "--data.x=a b", "--soup", "true"),
        ),
        (
            ("tl", "fit", "--data.source=${envvar:IMAGES}/x", '--config={"a": 1}', "--config", "${args_json_file}"),
            ("--data.source=/here/x", '--config={"a": 1}'),
        ),
    ],
)
def test_what_the_command_gives_to_fit_is_told_apart_from_the_parameters(monkeypatch, words, args):
    monkeypatch.setenv("IMAGES", "/here")
    assert read(**command(*words)).fit_args == args


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("LEFT OUT", "command is missing; write ["),
        ("python -m tl_lightning fit", "W&B wants a list of words"),
        (["python", "train.py", "${args}"], "command runs no tl fit: 'python train.py ${args}'; write ["),
        (["tl", "test", "--config", "${args_json_file}"], "command runs no tl fit"),
        (["tl", "fit", "${args}"], '${args} loses the values\' types; write --config, "${args_json_file}"'),
        (["tl", "fit", "${args_no_hyphens}"], "${args_no_hyphens} loses the values' types"),
        (["tl", "fit", "--config=${args_json_file}"], "W&B leaves '--config=${args_json_file}' as it is"),
        (["tl", "fit", "--config", "run.yaml"], 'command must end with --config, "${args_json_file}"'),
        (["tl", "fit", "--config", "${args_json_file}", "--config", "run.yaml"], "command must end with --config"),
        (["tl", "fit", None, "--config", "${args_json_file}"], "command[2] is None; it must be a word"),
        (
            ["tl", "fit", "--config", "rum.yaml", "--config", "${args_json_file}"],
            "there is no such file; did you mean run.yaml? (looked for from ",
        ),
        (["tl", "fit", "--config=rum.yaml", "--config", "${args_json_file}"], "did you mean run.yaml?"),
        (["tl", "fit", "--run_dir", "x", "--config", "${args_json_file}"], "--run_dir x would be every trial's folder"),
        (["tl", "fit", "--a=${envvar:NOT_THERE}", "--config", "${args_json_file}"], "NOT_THERE, which is not set"),
    ],
)
def test_a_command_that_would_lose_the_parameters_or_their_types_is_refused(words, said):
    assert said in message(command=words)


def test_a_file_that_is_not_there_or_holds_no_sweep_is_said(here):
    read()
    for content, said in (("a: [", "is no valid YAML"), ("- 1", "holds a list"), ("", "holds no sweep")):
        Path("broken.yaml").write_text(content)
        with pytest.raises(UserError, match=f"broken.yaml {said}"):
            read_sweep("broken.yaml")
    with pytest.raises(UserError, match=r"swep\.yaml: there is no such sweep file; did you mean sweep\.yaml"):
        read_sweep("swep.yaml")
    Path("latin.yaml").write_bytes(b"name: \xe4\n")
    with pytest.raises(UserError, match=r"latin\.yaml is no text in UTF-8"):
        read_sweep("latin.yaml")


def test_reading_imports_neither_torch_nor_optuna():
    code = (
        "import sys, tl_lightning.running.sweeping.sweep_file; print({'torch', 'optuna', 'scipy'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
