import pytest

from tl_lightning.cli import main
from tl_lightning.core.processes import is_one_of_several, is_started_by_lightning, process_rank

NAMES = (
    *("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK", "GROUP_RANK"),
    *("WORLD_SIZE", "SLURM_NTASKS", "JSM_NAMESPACE_SIZE"),
)


@pytest.fixture
def environ(monkeypatch):
    for name in (*NAMES, "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return lambda environment: [monkeypatch.setenv(name, value) for name, value in environment.items()]


@pytest.mark.parametrize(
    ("environment", "several", "by_lightning"),
    [
        ({}, False, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "2"}, False, False),  # it can end those that it started
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, True, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, True, False),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}, True, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, False, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, True, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, True, False),
    ],
)
def test_who_has_started_a_process_says_who_ends_it(environ, environment, several, by_lightning):
    environ(environment)
    assert (is_one_of_several(), is_started_by_lightning()) == (several, by_lightning)


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, 0),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, 1),
        ({"RANK": "0", "LOCAL_RANK": "0"}, 0),
        ({"RANK": "5", "LOCAL_RANK": "1", "GROUP_RANK": "1"}, 5),
        ({"NODE_RANK": "1"}, 1),  # a second machine, on which Lightning has yet to start processes
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, 1),
        ({"GROUP_RANK": "1", "LOCAL_RANK": "0"}, 1),
        ({"GROUP_RANK": "1", "NODE_RANK": "0", "LOCAL_RANK": "0"}, 0),
        ({"SLURM_PROCID": "3"}, 3),
        ({"JSM_NAMESPACE_RANK": "3"}, 3),
    ],
)
def test_only_the_first_process_of_the_first_machine_has_rank_0(environ, environment, rank):
    environ(environment)
    assert process_rank() == rank


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["one", "", "-1", "1.0"])
def test_a_rank_that_is_no_number_is_one_line_whatever_is_asked_for(environ, capsys, name, value):
    environ({name: value})
    assert main(["fit", "--data.source", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} is {value!r} in the environment" in line
