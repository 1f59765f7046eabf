"""What is shown can end nothing."""

import io
import os
import subprocess
import sys

import pytest

from tl_lightning.cli import main
from tl_lightning.core.console import console
from tl_lightning.core.screen import Screen, showing


def ascii_stream():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)


def test_a_terminal_that_lacks_a_letter_shows_its_escape(monkeypatch):
    stream = ascii_stream()
    monkeypatch.setattr(sys, "stdout", stream)
    console.print("± é \udcff")  # the last is of a file's name that is no text
    assert stream.buffer.getvalue() == b"\\xb1 \\xe9 \\udcff\n"
    with console.status("starting") as status:
        assert status._spinner.name == "line"  # of letters that every terminal has


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_what_cannot_be_shown_is_lost_and_the_work_goes_on(monkeypatch):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with showing() as screen:
            console.print("lost")
            print("by whoever prints", flush=True)
            assert sys.stdout.fileno() == full.fileno() and not console.is_terminal
        assert "No space left" in str(screen.lost) and sys.stdout is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # or closing it fails


def test_a_stream_that_is_closed_or_missing_takes_everything(monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stdout", stream)
        console.print("nobody sees this")
        with showing():
            print("nor this", flush=True)
    assert Screen(closed).isatty() is False


def test_a_command_that_only_shows_fails_where_it_cannot(monkeypatch, capsys):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(["configs"]) == 1
    assert main(["configs", "nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_result_goes_to_standard_output_alone(tmp_path):
    code = (
        "import sys; from tl_lightning.core.options import writable; from tl_lightning.core.console import console; "
        "from tl_lightning.core.files import write_csv; file = writable('/dev/stdout'); console.print('shown'); "
        "write_csv(file, [['a', 1]]); console.print('shown')"
    )
    table = tmp_path / "table.csv"
    for command in (f'{sys.executable} -c "{code}" > {table}', f'{sys.executable} -c "{code}" | cat > {table}'):
        ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert (table.read_text(), ended.stderr) == ("a,1\n", "shown\nshown\n")


def test_closed_streams_are_no_files_of_the_work(tmp_path):
    code = (
        "from tl_lightning.core.screen import close_streams, open_streams; import os; open_streams(); "
        "os.write(1, b'x'); print('y'); file = open('made.txt', 'w'); print(file.fileno() > 2, file=file); "
        "close_streams()"
    )
    command = f'{sys.executable} -c "{code}" >&- 2>&- <&-'
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert (tmp_path / "made.txt").read_text() == "True\n"
