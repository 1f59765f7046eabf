import os
import subprocess
import sys
import time

import pytest

from tl_lightning.cli import main
from tl_lightning.core.cache_folder import building, cache_dir, entries, hold, writing

ABOUT = '{"backbone": "timm/resnet18", "cut": "layer3", "view": "plain", "source": "elpv", "rows": 1200}'
KEYS = ["a1" * 8, "b2" * 8, "c3" * 8]


@pytest.fixture
def shown(capsys, monkeypatch):
    """Runs the command; gives what it prints."""
    monkeypatch.setenv("TL_CACHE_SIZE", "20GB")

    def run(*args, code=0):
        capsys.readouterr()
        assert main(["cache", *args]) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return run


def keep(key, *, kind="activations", about=None, done=0, used=0.0):
    """An entry of 2 MiB, last used so many seconds ago."""
    folder = cache_dir() / kind / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with building(folder), writing(folder) as unfinished:
        (unfinished / "data.bin").write_bytes(b"x" * 2**21)
        if about is not None:
            (unfinished / "about.json").write_text(about)
            (unfinished / "done.bin").write_bytes(b"\1" * done + b"\0" * 5)
    hold(folder).release()
    then = time.time() - used
    os.utime(folder.with_name(f".{key}.use"), (then, then))
    return folder


def kept():
    return [entry.key for entry in entries()]


def test_an_empty_cache_is_one_line(shown):
    empty = f"nothing is cached in {cache_dir()}; limit 18.6 GiB (TL_CACHE_SIZE)\n"
    assert shown() == shown("list") == empty
    assert shown("clear") == "nothing was removed\n"


def test_the_list_shows_what_there_is_and_who_uses_it(shown):
    held = hold(keep(KEYS[0], about=ABOUT, done=1100, used=3 * 3600 + 60))
    keep(KEYS[1], kind="images", about='{"source": "/data", "rows": 9, "done": 8}', used=5 * 86400 + 60)
    keep(KEYS[2], used=120)
    leftover = cache_dir() / "activations" / f".{'d4' * 8}.unfinished-00000000"
    leftover.mkdir()
    (leftover / "data.bin").write_bytes(b"x" * 2**20)
    assert shown("list").splitlines() == [
        "kind         key                      images     size  last used  what",
        f"images       {KEYS[1]}          8 / 9  2.0 MiB    5 d ago  /data",
        f"activations  {KEYS[0]}  1,100 / 1,200  2.0 MiB     in use  timm/resnet18 to layer3, plain, elpv",
        f"activations  {KEYS[2]}                 2.0 MiB  2 min ago",
        f"activations  {'d4' * 8}                 1.0 MiB        now  unfinished",
        f"7.0 MiB in all in {cache_dir()}; limit 18.6 GiB (TL_CACHE_SIZE)",
    ]
    held.release()


def test_clear_removes_what_nobody_uses_and_says_so(shown):
    held = hold(keep(KEYS[0], about=ABOUT))
    keep(KEYS[1], about=ABOUT)
    keep(KEYS[2], kind="images")
    what = "timm/resnet18 to layer3, plain, elpv, 2.0 MiB"
    lines = shown("clear").splitlines()
    assert lines == [
        f"removed images {KEYS[2]} (2.0 MiB)",
        f"kept    activations {KEYS[0]} ({what}): it is in use",
        f"removed activations {KEYS[1]} ({what})",
        "removed 2 of 3, 4.0 MiB",
    ]
    assert kept() == [KEYS[0]]
    held.release()


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (["--kind", "activations"], [KEYS[1]]),
        (["--kind", "images"], [KEYS[0], KEYS[2]]),
        (["--older_than", "7d"], [KEYS[1], KEYS[2]]),
        (["--older_than", "30min"], [KEYS[2]]),
        ([KEYS[1], KEYS[2]], [KEYS[0]]),
        (["--kind", "images", KEYS[0]], [KEYS[1], KEYS[0], KEYS[2]]),
    ],
)
def test_clear_removes_only_what_was_named(shown, args, left):
    keep(KEYS[0], used=8 * 86400)
    keep(KEYS[1], kind="images", used=3600)
    keep(KEYS[2])
    shown("clear", *args)
    assert sorted(kept()) == sorted(left)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["clear", "a1a1a1a1a1a1a1a2"],
            f"no 'a1a1a1a1a1a1a1a2' is cached; did you mean {KEYS[0]}? (see tl cache list)",
        ),
        (["clear", KEYS[0], "nothing"], "no 'nothing' is cached (see tl cache list)"),
        (["clear", "--older_than", "7"], "--older_than is '7'; it must be an age such as 7d, 12h or 30min"),
        (["clear", "--kind", "image"], "argument --kind: invalid choice: 'image'"),
        (["clear", "--older", "7d"], "unrecognized arguments: --older"),
        (["lst"], "there is no 'lst'; did you mean list? (tl cache list, tl cache clear)"),
    ],
)
def test_a_mistake_is_one_line_and_removes_nothing(shown, args, words):
    keep(KEYS[0])
    error = shown(*args, code=2)
    assert words in error and error.count("\n") == 1
    assert kept() == [KEYS[0]]


def test_a_limit_that_is_none_is_said(shown, monkeypatch):
    monkeypatch.setenv("TL_CACHE_SIZE", "much")
    assert "TL_CACHE_SIZE is 'much'" in shown("list", code=2)


def test_what_belongs_to_somebody_else_is_kept(shown, monkeypatch):
    keep(KEYS[0])

    def refuse(_folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tl_lightning.inspecting.cache.remove", refuse)
    assert shown("clear") == (
        f"kept    activations {KEYS[0]} (2.0 MiB): it cannot be removed (Permission denied)\nnothing was removed\n"
    )


@pytest.mark.parametrize("args", [["--help"], ["list", "--help"], ["clear", "--help"]])
def test_help_is_given(capsys, args):
    with pytest.raises(SystemExit) as stop:
        main(["cache", *args])
    assert stop.value.code == 0
    assert "usage: tl cache" in capsys.readouterr().out


def test_the_answer_waits_for_no_torch():
    code = "import sys; from tl_lightning.cli import main; main(['cache']); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.endswith("False\n")
