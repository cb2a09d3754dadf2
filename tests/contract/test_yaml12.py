"""YAML 1.2 scalars, one-line errors with their place, and dumps that every reader takes for the same."""

import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.contract.errors import RunnerError
from runner.contract.yaml12 import dump_yaml, load_mapping, load_yaml

SCALARS = [
    ("1e-3", 0.001),
    ("1E3", 1000.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("+12", 12),
    ("010", 10),
    ("0o10", 8),
    ("0x1F", 31),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("on", "on"),
    ("Yes", "Yes"),
    ("off", "off"),
    ("n", "n"),
    ("True", True),
    ("FALSE", False),
    ("tRUE", "tRUE"),
    ("2020-01-01", "2020-01-01"),
    ("2020-01-01 10:00:00", "2020-01-01 10:00:00"),
    ("~", None),
    ("Null", None),
    ("", None),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("0b1", "0b1"),
    ("1e", "1e"),
    ("=", "="),
    ("'1'", "1"),
    ("!!str 1", "1"),
    ("!!float 3", 3.0),
    (r'"\ud83d\ude00"', "\U0001f600"),
    ("x: 1", {"x": 1}),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text or "empty" for text, _ in SCALARS])
def test_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    loaded = load_yaml(text)
    assert loaded == value
    assert type(loaded) is type(value)


def test_nan_is_read() -> None:
    assert math.isnan(load_yaml(".nan"))


def test_anchors_and_merge_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 9}\nd: *a\n'<<': text\n"
    loaded = load_yaml(text)
    assert loaded["c"] == {"x": 9, "y": 2, "z": 4}
    assert loaded["d"] == {"x": 1, "y": 2}
    assert loaded["d"] is not loaded["a"]
    assert loaded["<<"] == "text"


BAD = [
    ("a:\n\tb: 1", "f.yml:2:1: not YAML: a tab stands where YAML wants spaces; indent with spaces"),
    ("a: 1\na: 2", "f.yml:2:1: the key 'a' stands twice, first in line 1; keep one of them"),
    ("a: b: c", "f.yml:1:5: not YAML: a second ': ' in one value; quote the text, or put the key on its own line"),
    ("a: 1\nb", "f.yml:2:2: not YAML: a key without its ': '"),
    ("- 1", "f.yml: holds a list at its top; expected a mapping (lines of `key: value`)"),
    ("just text", "f.yml: holds a str at its top; expected a mapping (lines of `key: value`)"),
    ("", "f.yml: empty; expected a mapping (lines of `key: value`; {} says that nothing is set)"),
    ("# a comment\n", "f.yml: empty; expected a mapping (lines of `key: value`; {} says that nothing is set)"),
    ("a: [1", "f.yml:1:6: not YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'"),
    ("x: 'abc", "f.yml:1:8: not YAML: while scanning a quoted scalar: found unexpected end of stream"),
    ("---\na: 1\n---\nb: 2", "f.yml:3:1: not YAML: a second document begins ('---'); a file holds one"),
    ("a: *x", "f.yml:1:4: not YAML: found undefined alias 'x'"),
    ("a: &a [*a]", "f.yml:1:4: an alias stands inside the very value that it names"),
    ("1: x", "f.yml:1:1: a key that is an int (1); keys are text, so put it in quotes"),
    ("[1]: x", "f.yml:1:1: a key that is a sequence; keys are text, so put it in quotes"),
    ("a: !!int x", "f.yml:1:4: 'x' is no int"),
    ("a: !!set {b}", "f.yml:1:4: the tag !!set is not one of YAML's core for mappings; write a plain value"),
    ("a: !thing 1", "f.yml:1:4: the tag !thing is not one of YAML's core for scalars; write a plain value"),
    ("a: \x01", "f.yml:1: the character '\\x01' cannot stand in YAML"),
    (r'a: "\ud83d"', "f.yml:1:4: half of a two-part character (\\ud800 to \\udfff) stands alone"),
    ("a: {<<: 3}", "f.yml:1:9: << takes a mapping or a list of mappings, found an int"),
    ("a: " + "9" * 2000, "f.yml:1:4: a number of 2,000 digits; put it in quotes if it is text"),
    ("a: " + "[" * 5000, "f.yml: nested too deeply to be read"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text[:20] or "empty" for text, _ in BAD])
def test_bad_yaml_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(RunnerError) as caught:
        load_mapping(text, name="f.yml")
    assert str(caught.value) == message


def test_a_python_object_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"the tag !!python/object/apply:os\.system is not one of YAML's core"):
        load_yaml(f"!!python/object/apply:os.system ['touch {tmp_path}/owned']")
    assert not (tmp_path / "owned").exists()


def test_nested_aliases_are_bounded() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(RunnerError, match="more than 1,000,000 values once its aliases are written out"):
        load_yaml(bomb)


FILES = [
    (b"\x89PNG\r\n\x1a\n\0", "not text (byte 0x89 at offset 0); expected YAML in UTF-8"),
    (b"a: 1\n\0", "not text (byte 0x00 at offset 5); expected YAML in UTF-8"),
    (b"# " + b"x" * 5 * 2**20, "larger than 4 MiB; expected a YAML file written by a person"),
    (b"", "empty; expected a mapping (lines of `key: value`; {} says that nothing is set)"),
]


@pytest.mark.parametrize(("content", "message"), FILES)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.yml"
    path.write_bytes(content)
    with pytest.raises(RunnerError) as caught:
        load_mapping(path)
    assert str(caught.value) == f"{path}: {message}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"gone\.yml: not there$"):
        load_yaml(tmp_path / "gone.yml")
    with pytest.raises(RunnerError, match=r"not a file; expected a YAML file$"):
        load_yaml(tmp_path)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    assert load_yaml(path) == {"a": 1, "b": "x"}


def test_a_mapping_knows_the_line_of_each_value(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("a: 1\n\nb:\n  c: [1,\n    {d: 2}]\n")
    document = load_mapping(path, name="config.yml")
    assert document.where(("b", "c")) == "config.yml:4"
    assert document.where(("b", "c", 1, "d")) == "config.yml:5"
    assert document.where(("b", "not there")) == "config.yml:3"
    assert document.where(()) == "config.yml"


TRICKY = [
    *(
        "on",
        "off",
        "yes",
        "No",
        "y",
        "N",
        "true",
        "False",
        "null",
        "~",
        "",
        " ",
        "=",
        "<<",
        "-",
        "?",
        ":",
        "---",
        "...",
    ),
    *("1", "010", "0o10", "0x1F", "0b1", "1_000", "1e3", "1e-3", "1.5", ".5", "1.", "+1", "-.inf", ".nan", ".NaN"),
    *("1:30", "1:30.5", "2020-01-01", "2020-01-01T10:00:00Z", "12e03", "0.", "-0", "1E5", "0e0"),
    *("a: b", "a #b", "#a", "a:", "'a'", '"a"', "a\nb", "a\n", "\na", " a", "a ", "\t", "a\tb", "a\\b", "[a]", "{a}"),
    *("&a", "*a", "!a", "%a", "@a", "`a", "|", ">", "- a", "é", "\u2028", "\x85", "\ufeff", "\U0001f600", "\x7f", "\0"),
    *("x" * 500, "word " * 60, "a\n\n b\n  c", "$(id)", 'x"; touch /tmp/owned; "', "a,b", "a, b", "http://x:80/?a=b"),
]


def random_value(source: random.Random, depth: int = 0) -> Any:
    kind = source.randrange(6 if depth > 3 else 9)
    if kind == 0:
        return source.choice([None, True, False])
    if kind == 1:
        return source.choice([0, -1, 2**70, source.randrange(-(10**9), 10**9)])
    if kind == 2:
        return source.choice([0.0, 1.0, 1e-5, 1e22, -1e300, 5e-324, math.inf, -math.inf, source.gauss(0, 1)])
    if kind <= 4:
        return source.choice(TRICKY)
    if kind == 5:
        return "".join(chr(source.choice([source.randrange(256), source.randrange(0xD800)])) for _ in range(8))
    if kind == 6:
        return [random_value(source, depth + 1) for _ in range(source.randrange(5))]
    keys = [random_value(source, 9) for _ in range(source.randrange(5))]
    return {str(key): random_value(source, depth + 1) for key in keys}


def same(left: Any, right: Any) -> bool:
    """Equal, with the types and the order of keys."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize("seed", range(40))
def test_a_dump_reads_back_to_the_same_in_both_versions_of_yaml(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(15):
        value = random_value(source)
        text = dump_yaml(value)
        assert same(load_yaml(text), value), text
        assert same(yaml.safe_load(text), value), text
        assert text.endswith("\n")


@pytest.mark.parametrize("text", TRICKY, ids=[ascii(text)[:30] for text in TRICKY])
def test_text_stays_text(text: str) -> None:
    for value in (text, [text], {"key": text}, {text: text}, [[text, 1]]):
        dumped = dump_yaml(value)
        assert load_yaml(dumped) == value
        assert yaml.safe_load(dumped) == value


def test_a_dump_reads_well() -> None:
    value = {"tag": "toy", "rate": 1e-05, "on": "on", "layers": [64, 128], "model": {"name": "é", "blocks": [{"w": 1}]}}
    assert dump_yaml(value | {"none": None, "empty": {}, "no": []}) == (
        "tag: toy\nrate: 1.0e-05\n'on': 'on'\nlayers: [64, 128]\n"
        "model:\n  name: é\n  blocks:\n    - w: 1\nnone: null\nempty: {}\n'no': []\n"
    )


def test_what_yaml_has_no_form_for_is_refused() -> None:
    with pytest.raises(TypeError, match="keys are text"):
        dump_yaml({1: 2})
    with pytest.raises(TypeError, match="which YAML's core has no form for"):
        dump_yaml({"a": {1, 2}})


def test_random_bytes_make_a_value_or_one_line(tmp_path: Path) -> None:
    source = random.Random(0)
    alphabet = "ab1: -[]{}'\"\n\t&*!|>#%@,?~.\\<0x"
    for _ in range(1500):
        text = "".join(source.choice(alphabet) for _ in range(source.randrange(30)))
        try:
            load_yaml(text, name="f.yml")
        except RunnerError as error:
            assert "\n" not in str(error)
            assert str(error).startswith("f.yml:")


def test_importing_it_does_not_import_pyyaml() -> None:
    code = "import sys, runner.contract.config, runner.contract.sweep; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
