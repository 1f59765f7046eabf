"""YAML as people write it: one reader for all, which says what is wrong in one line."""

import pytest
import yaml

from tl_lightning.core.yaml_files import parse_mapping, parse_yaml, read_mapping, to_yaml
from tl_lightning.errors import UserError


def test_words_without_quotes_are_the_text_that_stands_there():
    text = "[no, Yes, on, off, y, 012, 0x1F, 0o7, 2020-01-01, 1:30, 00:00:01:00, =]"
    assert parse_yaml(text) == text[1:-1].split(", ")
    assert parse_yaml("[true, False, ~, null, 12, -3, 1_000, 1.0, 1e-3, .5, .inf]") == [
        *(True, False, None, None, 12, -3, 1000, 1.0, 1e-3, 0.5, float("inf"))
    ]
    assert parse_yaml("[no, 012, 1e-3, 2020]", old=True) == [False, 10, "1e-3", 2020]


def test_what_is_written_is_read_back_by_readers_of_either_kind():
    words = "no 1e3 012 08 0x1F 1:30 2020-01-01 true 1.0 = << ~ y 1_000 é null".split()
    tree = {"words": [*words, "", "a: b", "#"], "values": [1e-3, 1e22, True, None, 10**20], "no": {"1.5": {}}}
    for flow in (False, True):
        assert parse_yaml(to_yaml(tree, flow=flow)) == tree
        assert yaml.safe_load(to_yaml(tree, flow=flow))["words"] == tree["words"]
    assert "\n" not in to_yaml({"a": "word " * 100}, flow=True).rstrip()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml: the key 'a' is there twice, in lines 1 and 3; keep one of them"),
        ("a:\n  b: {c: 1}\n  b: 2", "f.yaml: the key 'b' is there twice, in lines 2 and 3; keep one of them"),
        ("- {a: 1, 'a': 2}", "f.yaml: the key 'a' is there twice, in line 1; keep one of them"),
        ('{"a": {"b": 1,\n"b": 2}}', "f.yaml: the key 'b' is there twice, in lines 1 and 2; keep one of them"),
        ("- 1", "f.yaml holds a list; it must be a mapping, with lines such as key: value"),
        ("a b", "f.yaml holds 'a b'; it must be a mapping, with lines such as key: value"),
        ("1: 2", "f.yaml: the key 1 must be text"),
        ("a: [\nb: 1\n", "f.yaml is no valid YAML: line 3, column 1: did not find expected"),
        ("a: !!python/object:os.x 3", "f.yaml is no valid YAML: line 1, column 4: could not determine a constructor"),
        ("a: " + "9" * 5000, "f.yaml is no valid YAML: Exceeds the limit"),
        ("a: \x00", "f.yaml is no valid YAML: "),
    ],
)
def test_what_cannot_be_meant_is_one_line(text, said):
    with pytest.raises(UserError) as error:
        parse_mapping(text, "f.yaml")
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_a_merged_key_may_be_given_anew_and_json_may_have_tabs():
    assert parse_yaml("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}")["d"] == {"b": 3, "c": 2}
    assert parse_yaml('{\n\t"a": ["x\\/y"]\n}') == {"a": ["x/y"]}
    assert parse_mapping("# nothing\n", "f.yaml") == {}


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4\n")
    (tmp_path / "marked.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    with pytest.raises(UserError, match=r"latin\.yaml is no text in UTF-8 \(.* at byte 3\)"):
        read_mapping(tmp_path / "latin.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_mapping(tmp_path)
    assert read_mapping(tmp_path / "marked.yaml") == {"a": 1}
