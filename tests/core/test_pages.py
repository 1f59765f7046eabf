"""The kit of pages: every part, escaped; charts that take the page's colours; templates that a wheel carries."""

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from pages import check_page
from PIL import Image
from rich.table import Table as RichTable
from rich.text import Text as RichText

from tl_lightning.core.pages.page import (
    Bar,
    Bars,
    Chart,
    Charts,
    EncodedImage,
    Facts,
    Link,
    Strip,
    Strips,
    Table,
    TableRow,
    Text,
    to_html,
)
from tl_lightning.core.plots import as_svg, log_scale, new_figure, save_figure

HOSTILE = """<b> & "it's" </script>"""


def a_chart(name="a", label="loss"):
    figure, axes = new_figure()
    axes.scatter([1, 2], [3, 4], c=["#11223344", "#55667788"], urls=["#one", "#two"], label=label)
    axes.set_xlabel(f"{label}\nin two lines")
    axes.legend()
    return Chart("Whether it falls.", as_svg(figure, name, {"#one": f"tip {label}"}))


def test_a_page_of_every_part_is_whole_and_needs_no_network():
    strip = Strip("a.png", "cat", [EncodedImage("file", b"\x89PNG"), EncodedImage("cut", b"jpeg")])
    parts = [
        Text("said", "lead", title="first"),
        Facts([("name", "what")]),
        Table("rows", [("n", True), ("link", False)], [TableRow(["1,000", Link("run", "runs/1")], "bold", "row-1")]),
        Bars("counts", "of images", ["class", "train"], [Bar("cat", [1200]), Bar("here"), Bar("dog", [300])]),
        Charts("drawn", [a_chart("a"), a_chart("b")]),
        Strips("cats", "2 in training", [strip], small=True),
    ]
    text = to_html("all", parts)
    page = check_page(text)
    assert page.headings == ["all", "first", "rows", "counts", "drawn"]
    assert page.captions == ["Whether it falls.", "Whether it falls.", "file", "cut"]
    assert '<p class="lead">said</p>' in text
    assert "<tr><th>name</th><td>what</td></tr>" in text
    assert '<tr id="row-1" class="bold"><td class="right">1,000</td><td><a href="runs/1">run</a></td></tr>' in text
    assert 'style="width:10.0em"></span>1,200<' in text and 'style="width:2.5em"></span>300<' in text
    assert '<tr class="marked"><td colspan="2">here</td></tr>' in text
    assert page.values("img", "src") == ["data:image/png;base64,iVBORw==", "data:image/jpeg;base64,anBlZw=="]
    assert "script" not in page.elements


def test_names_cannot_break_a_page():
    parts = [
        *(Text(HOSTILE, kind, title=HOSTILE) for kind in ("plain", "code")),
        Facts([(HOSTILE, HOSTILE)]),
        Table(HOSTILE, [(HOSTILE, False)], [TableRow([HOSTILE], HOSTILE, HOSTILE)], HOSTILE),
        Table("links", [("link", False)], [TableRow([Link(HOSTILE, HOSTILE)])], sortable=True),
        Bars(HOSTILE, HOSTILE, [HOSTILE, HOSTILE], [Bar(HOSTILE, [1]), Bar(HOSTILE)]),
        Charts(HOSTILE, [Chart(f"It is {HOSTILE}.", a_chart(label=HOSTILE).svg)]),
        Strips(HOSTILE, HOSTILE, [Strip(HOSTILE, HOSTILE, [EncodedImage(HOSTILE, b"")])]),
    ]
    text = to_html(HOSTILE, parts)
    page = check_page(text)
    assert "b" not in page.elements and page.elements.count("script") == 1
    assert page.headings.count(HOSTILE) == 6
    assert page.values("img", "alt") == page.values("tr", "id") == [HOSTILE]


def test_a_table_of_the_terminal_is_one_of_the_page():
    table = RichTable(title="[bold]two[/bold]")
    table.add_column("name")
    table.add_column(RichText("value"), justify="right")
    table.add_row("[red]a[/red]", RichText("[1]"), style="bold green")
    table.add_section()
    table.add_row("b")
    rows = [TableRow(["a", "[1]"], "bold green"), TableRow(["b", ""])]
    assert Table.of(table) == Table("two", [("name", False), ("value", True)], rows)


def test_a_chart_has_the_pages_colours_and_links_with_tips():
    chart = a_chart().svg
    assert chart.startswith('<svg viewBox="0 0 405 243" role="img">') and chart.rstrip().endswith("</svg>")
    assert "#000000" not in chart and "currentColor" in chart
    assert '<a href="#one"><title>tip loss</title>' in chart and '<a href="#two">' in chart
    assert ">in two lines</text>" in chart
    assert "_blank" not in chart and "xlink" not in chart
    assert ">loss</text>" in chart  # as text, which can be searched for
    assert a_chart().svg == chart and a_chart("b").svg != chart


def test_a_logarithmic_axis_has_its_numbers_written_out():
    figure, axes = new_figure()
    axes.plot([1e-4, 1e-1], [0, 1])
    log_scale(axes)
    written = re.findall(r">([\d.e-]+)</text>", as_svg(figure, "a"))
    assert {"0.0001", "0.001", "0.003", "0.01", "0.1"} <= set(written)


def test_a_png_is_written_whole(tmp_path):
    figure, axes = new_figure()
    axes.plot([0, 1], [1, 0])
    save_figure(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (900, 540) and np.asarray(image).std() > 10
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_wheel_carries_the_templates(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {Path(name).name for name in zipfile.ZipFile(io.BytesIO(wheel.read_bytes())).namelist() if "pages/" in name}
    assert {"page.html", "parts.html", "page.css", "sort.js", "page.py"} <= names
