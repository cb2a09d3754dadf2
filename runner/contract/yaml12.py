"""YAML as configs are written in it: the YAML 1.2 core scalars, on PyYAML's parser.

PyYAML resolves scalars by YAML 1.1, where `1e-3` is text, `on` is true, `1:30` is 90, `010` is 8 and `2020-01-01` a
date. Here a plain scalar is null, a bool, an int (decimal, 0o17, 0x1F), a float (1e-3, .inf, .nan) or else text.
Anchors, aliases and the merge key `<<` work. Keys are text, and a key stands once. `yaml` is imported at the first
use only.
"""

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError

Position = tuple[str | int, ...]
"""Where a value stands in a document: the keys and list indices that lead to it."""

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_RESOLVERS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    (_TAG + "null", _NULL, "~nN\0"),
    (_TAG + "bool", _BOOL, "tTfF"),
    (_TAG + "int", _INT, "-+0123456789"),
    (_TAG + "float", _FLOAT, "-+.0123456789"),
    (_TAG + "merge", re.compile(r"<<\Z"), "<"),
)
_MAX_BYTES = 4 * 2**20
_MAX_VALUES = 1_000_000
"""A few lines of nested aliases can stand for billions of values."""


class Document(dict[str, Any]):
    """A mapping read from a file, which still knows its name and the line of each value."""

    def __init__(self, values: Mapping[str, Any], *, name: str, lines: Mapping[Position, int] | None = None) -> None:
        super().__init__(values)
        self.name = name
        self.lines: Mapping[Position, int] = {} if lines is None else lines

    def where(self, position: Position) -> str:
        """`file:line` of a value, or of the nearest thing around it that has a line."""
        while position and position not in self.lines:
            position = position[:-1]
        return f"{self.name}:{self.lines[position]}" if position else self.name


def load_yaml(source: str | Path, *, name: str | None = None) -> Any:
    """The value that a YAML text (str) or file (Path) holds.

    Raises:
        RunnerError: not readable, not text, not YAML, a duplicate or non-text key, a tag or alias that cannot be used.
            One line: file, line, column, problem.
    """
    return _load(source, name)[0]


def load_mapping(source: str | Path, *, name: str | None = None) -> Document:
    """The mapping that a YAML text (str) or file (Path) holds; `name` is what messages call it.

    Raises:
        RunnerError: as `load_yaml`, and for a document that is empty or holds something else at its top.
    """
    name = _name_of(source, name)
    value, lines = _load(source, name)
    if value is None:
        raise RunnerError(f"{name}: empty; expected a mapping (lines of `key: value`; {{}} says that nothing is set)")
    if not isinstance(value, dict):
        raise RunnerError(f"{name}: holds {type_name(value)} at its top; expected a mapping (lines of `key: value`)")
    return Document(value, name=name, lines=lines)


def dump_yaml(value: Any) -> str:
    """YAML that a 1.1 and a 1.2 reader take for the same value; mappings in their own order.

    Raises:
        TypeError: something that YAML's core schema has no form for, or a key that is not text.
    """
    import yaml

    text: str = yaml.dump(
        _plain(value), Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=False
    )
    return text.removesuffix("...\n")


def type_name(value: Any) -> str:
    """What a person calls the type of a YAML value: `an int`, `a mapping` …"""
    if value is None:
        return "null"
    names = {bool: "a bool", int: "an int", float: "a float", str: "a str", list: "a list", tuple: "a list"}
    return names.get(type(value), "a mapping" if isinstance(value, Mapping) else f"a {type(value).__name__}")


def _name_of(source: str | Path, name: str | None) -> str:
    if name is not None:
        return name
    return str(source) if isinstance(source, Path) else "text"


def _load(source: str | Path, name: str | None) -> tuple[Any, dict[Position, int]]:
    import yaml

    name = _name_of(source, name)
    text = _read(source, name) if isinstance(source, Path) else source
    lines: dict[Position, int] = {}
    try:
        node = yaml.compose(text, Loader=_loader())
        value = None if node is None else _Builder(name, lines).build(node, ())
    except yaml.MarkedYAMLError as error:
        raise RunnerError(_explain(name, text, error)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RunnerError(f"{name}:{line}: the character {chr(error.character)!r} cannot stand in YAML") from None
    except RecursionError:
        raise RunnerError(f"{name}: nested too deeply to be read") from None
    except (ValueError, OverflowError) as error:  # an escape or number that PyYAML hands to chr() or int() as it is
        raise RunnerError(f"{name}: not YAML ({error})") from None
    return value, lines


def _read(path: Path, name: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise RunnerError(f"{name}: not a file; expected a YAML file")
        with path.open("rb") as handle:
            content = handle.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise RunnerError(f"{name}: not there") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunnerError(f"{name}: cannot be read ({reason})") from None
    if len(content) > _MAX_BYTES:
        raise RunnerError(f"{name}: larger than {_MAX_BYTES // 2**20} MiB; expected a YAML file written by a person")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start
    else:
        if "\0" not in text:
            return text
        offset = content.index(b"\0")
    raise RunnerError(f"{name}: not text (byte 0x{content[offset]:02x} at offset {offset}); expected YAML in UTF-8")


_MEANINGS = {
    "found character '\\t' that cannot start any token": "a tab stands where YAML wants spaces; indent with spaces",
    "mapping values are not allowed here": "a second ': ' in one value; quote the text, or put the key on its own line",
    "but found another document": "a second document begins ('---'); a file holds one",
    "expected <block end>, but found '<block mapping start>'": "this line is indented unlike those around it",
    "expected <block end>, but found '<block sequence start>'": "this line is indented unlike those around it",
    "could not find expected ':'": "a key without its ': '",
}
"""What the commonest of PyYAML's problems mean to somebody who writes a config."""


def _explain(name: str, text: str, error: Any) -> str:
    mark = error.problem_mark or error.context_mark
    where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
    problem = " ".join(str(error.problem or error.context).split())
    meaning = _MEANINGS.get(problem)
    if meaning is None:
        context = "" if not error.context else " ".join(error.context.split()) + ": "
        return f"{where}: not YAML: {context}{problem}"
    return f"{where}: not YAML: {meaning}"


class _Builder:
    """Turns PyYAML's nodes into values and notes the line of each."""

    def __init__(self, name: str, lines: dict[Position, int]) -> None:
        self._name = name
        self._lines = lines
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: Any, position: Position) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES:
            raise self._error(node, f"more than {_MAX_VALUES:,} values once its aliases are written out")
        self._lines.setdefault(position, node.start_mark.line + 1)
        if node.id == "scalar":
            return self._scalar(node)
        if id(node) in self._open:
            raise self._error(node, "an alias stands inside the very value that it names")
        self._open.add(id(node))
        if node.id == "sequence":
            self._expect_tag(node, "seq")
            value: Any = [self.build(item, (*position, index)) for index, item in enumerate(node.value)]
        else:
            self._expect_tag(node, "map")
            value = self._mapping(node, position)
        self._open.discard(id(node))
        return value

    def _mapping(self, node: Any, position: Position) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAG + "merge":
                for name, value in self._merged(value_node, position).items():
                    merged.setdefault(name, value)
                continue
            key = self._key(key_node)
            if key in seen:
                raise self._error(
                    key_node, f"the key {key!r} stands twice, first in line {seen[key]}; keep one of them"
                )
            seen[key] = line
            self._lines[(*position, key)] = line
            own[key] = self.build(value_node, (*position, key))
        return {**{key: value for key, value in merged.items() if key not in own}, **own} if merged else own

    def _key(self, node: Any) -> str:
        key = self._scalar(node) if node.id == "scalar" else None
        if isinstance(key, str):
            return key
        found = f"{type_name(key)} ({node.value})" if node.id == "scalar" else f"a {node.id}"
        raise self._error(node, f"a key that is {found}; keys are text, so put it in quotes")

    def _merged(self, node: Any, position: Position) -> dict[str, Any]:
        """What `<<: *name` or `<<: [*one, *two]` brings in; the first to have a key wins."""
        nodes = node.value if node.id == "sequence" else [node]
        result: dict[str, Any] = {}
        for item in nodes:
            value = self.build(item, position)
            if not isinstance(value, dict):
                raise self._error(item, f"<< takes a mapping or a list of mappings, found {type_name(value)}")
            for name, inner in value.items():
                result.setdefault(name, inner)
        return result

    def _scalar(self, node: Any) -> Any:
        text = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "merge"):
            return self._text(node, text)
        if kind == "null" and _NULL.match(text):
            return None
        if kind == "bool" and _BOOL.match(text):
            return text in ("true", "True", "TRUE")
        if kind == "int" and _INT.match(text):
            if len(text) > 1000:
                raise self._error(node, f"a number of {len(text):,} digits; put it in quotes if it is text")
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if kind == "float" and (_FLOAT.match(text) or _INT.match(text)):
            return _float(text)
        if kind in ("null", "bool", "int", "float"):
            raise self._error(node, f"{text!r} is no {kind}")
        raise self._tag_error(node)

    def _text(self, node: Any, text: str) -> str:
        try:  # JSON writes a character beyond the first 65,536 as two escapes
            return text.encode("utf-16", "surrogatepass").decode("utf-16") if not text.isascii() else text
        except UnicodeDecodeError:
            raise self._error(node, "half of a two-part character (\\ud800 to \\udfff) stands alone") from None

    def _expect_tag(self, node: Any, kind: str) -> None:
        if node.tag != _TAG + kind:
            raise self._tag_error(node)

    def _tag_error(self, node: Any) -> RunnerError:
        tag = node.tag.replace(_TAG, "!!")
        return self._error(node, f"the tag {tag} is not one of YAML's core for {node.id}s; write a plain value")

    def _error(self, node: Any, problem: str) -> RunnerError:
        mark = node.start_mark
        return RunnerError(f"{self._name}:{mark.line + 1}:{mark.column + 1}: {problem}")


def _float(text: str) -> float:
    lowered = text.lower()
    if lowered.endswith(("inf", "nan")):
        return float(lowered.replace(".", ""))
    return float(int(text, 0)) if lowered[:2] in ("0o", "0x") else float(text)


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's parser with the scalars of YAML 1.2. The C parser is not used: deep nesting overflows its stack."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way)

    for tag, pattern, first in _RESOLVERS:
        for character in first:
            key = "" if character == "\0" else character
            Loader.yaml_implicit_resolvers.setdefault(key, []).append((tag, pattern))
    return Loader


def _plain(value: Any) -> Any:
    """`value` in dicts and lists, checked."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is {type_name(key)}; keys are text")
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    for kind in (bool, int, float, str):  # numpy's float64 is a float and is written as one
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise TypeError(f"{value!r} is {type_name(value)}, which YAML's core has no form for")


@cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes text that either version of YAML would take for something else. Lists of scalars go on one line."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def text(dumper: Any, value: str) -> Any:
        plain = value.isprintable() and len(value) < 120
        return dumper.represent_scalar(_TAG + "str", value, style=None if plain else '"')

    def mapping(dumper: Any, value: dict[str, Any]) -> Any:
        return dumper.represent_mapping(_TAG + "map", list(value.items()), flow_style=not value)

    def sequence(dumper: Any, value: list[Any]) -> Any:
        flat = not any(isinstance(item, dict | list) for item in value)
        return dumper.represent_sequence(_TAG + "seq", value, flow_style=flat)

    Dumper.yaml_representers = {
        kind: yaml.SafeDumper.yaml_representers[kind] for kind in (type(None), bool, int, float)
    } | {str: text, dict: mapping, list: sequence}
    Dumper.yaml_implicit_resolvers = {
        key: list(value) for key, value in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }
    one_letter = (_TAG + "bool", re.compile(r"[yYnN]\Z"), "yYnN")
    for tag, pattern, first in (*_RESOLVERS, one_letter):
        for character in first:
            key = "" if character == "\0" else character
            Dumper.yaml_implicit_resolvers.setdefault(key, []).append((tag, pattern))
    return Dumper
