"""The settings of one run: defaults, an experiment and overrides become one frozen, complete `Config`.

`configs/default.yml` holds every key with its default: it is the schema. An experiment names what differs. `{}` opens a
mapping (any keys below it), null takes anything; everything else keeps its type. `BUILTIN` lists the keys that every
project has without listing them.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.frozen_config import Config, configs_in, snapshot, unread
from runner.contract.jsonio import read_json, sha256_of
from runner.contract.overrides import set_in, split_overrides, value_of
from runner.contract.schema import BUILTIN, Checker, Where, builtin_defaults, types_at
from runner.contract.yaml12 import Document, Position, type_name

__all__ = [
    "BUILTIN",
    "Config",
    "differences",
    "identity",
    "load_config",
    "python_files",
    "resolve",
    "snapshot",
    "split_overrides",
    "unread",
    "with_values",
]

NOT_IDENTITY = ("resources", "tag")
"""What a run is given and called: no part of what it computes."""


def identity(config: Mapping[str, Any]) -> str:
    """The sha256 of what the run computes: the canonical resolved config without `resources` and `tag`."""
    plain = snapshot(config) if isinstance(config, Config) else config
    return sha256_of({key: value for key, value in plain.items() if key not in NOT_IDENTITY})


def load_config(path: Path) -> Config:
    """The Config in a `config.json`.

    Raises:
        RunnerError: not there, not JSON, or not an object.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise RunnerError(f"{path}: holds {type_name(values)}; expected a config (a JSON object)")
    return Config(values)


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """A new Config with other values, by dotted name: `with_values(config, {"gpu": True})`. Types are not checked."""
    plain = snapshot(config)
    for dotted, value in values.items():
        problem = set_in(plain, tuple(dotted.split(".")), value)
        assert problem is None, problem
    return Config(plain)


def python_files(config: Config) -> list[str]:
    """The Python files that the config names (`model: {file: model.py, …}`), once each, in its order.

    They are opaque to the host: hashed, kept with the run, executed inside only.
    """
    found = (inner._values.get("file") for inner in configs_in(config))
    return list(dict.fromkeys(file for file in found if isinstance(file, str) and file.endswith(".py")))


def resolve(
    default: Mapping[str, Any],
    experiment: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    tag: str = "",
    dataset: str | Sequence[str] | None = None,
    inherited: Mapping[str, Any] | None = None,
) -> Config:
    """The complete config: built-in keys, then `default`, then `experiment`, then `overrides` (`a.b=1e-3`).

    `tag` and `dataset` are the defaults of those two keys; `inherited` holds further keys with their defaults that
    the project need not list (those of the Trainer). Values are coerced to their declared type (see `Checker.fit`).
    Messages say file and line where the mappings are Documents (from `load_mapping`).

    Raises:
        RunnerError: unknown keys, wrong types, overrides without `=` …: all of them, in one line.
    """
    checker = Checker(_where(default, "default.yml"), trainer=inherited is not None)
    builtin = {**(inherited or {}), **builtin_defaults(tag=tag, dataset=dataset)}
    declared = _declare(checker, default, builtin)
    resolved = checker.fit(declared, declared, experiment, (), _where(experiment, "the experiment's config"))
    resolved = copy.deepcopy(resolved)
    for text in overrides:
        resolved = _override(checker, declared, resolved, text)
    if checker.problems:
        raise RunnerError("; ".join(checker.problems))
    return Config(resolved)


def _where(values: Mapping[str, Any], name: str) -> Where:
    return values.where if isinstance(values, Document) else lambda position: name


def _declare(checker: Checker, default: Mapping[str, Any], builtin: dict[str, Any]) -> dict[str, Any]:
    """The schema: the built-in keys with the project's defaults; `resources` stands last."""
    where = _where(default, "default.yml")
    declared = {key: value for key, value in builtin.items() if key != "resources"}
    for key, value in default.items():
        declared[key] = checker.fit(builtin.get(key), builtin.get(key), value, (key,), where)
    _check_names(checker, default, (), where)
    resources = declared.pop("resources", builtin["resources"])
    return {**declared, "resources": resources}


def _check_names(checker: Checker, default: Mapping[str, Any], at: Position, where: Where) -> None:
    """Refuse keys that could not be used: sweeps, and names that mean something else on every Config."""
    for key, value in default.items():
        position = (*at, key)
        if not key:
            checker.problems.append(f"{where(position)}: an empty key; give it a name")
        elif key.endswith("_"):
            checker.fail(position, where, "ends with an underscore, which makes a sweep; sweeps belong in experiments")
        elif hasattr(Config, key):
            checker.fail(position, where, f"cannot be a key: config.{key} is a method; choose another name")
        if isinstance(value, Mapping):
            _check_names(checker, value, position, where)


def _override(checker: Checker, declared: dict[str, Any], resolved: dict[str, Any], text: str) -> dict[str, Any]:
    """`resolved` with one `a.b=value` in it; what is wrong goes to the checker."""
    dotted, equals, raw = text.partition("=")
    dotted = dotted.strip()
    if not equals or not dotted:
        checker.problems.append(f"SET: {text!r} has no {'key before its ' if equals else ''}'='; write key=value")
        return resolved
    position = tuple(dotted.split("."))
    if "" in position:
        checker.problems.append(f"SET: {text!r} has an empty name beside a dot; write section.key=value")
        return resolved
    known: Any = declared
    depth = 0
    while depth < len(position) and isinstance(known, Mapping) and known:
        if position[depth] not in known:
            checker.unknown(position[: depth + 1], _set, known)
            return resolved
        known = known[position[depth]]
        depth += 1
    try:
        value = value_of(raw, types_at(position, known) if depth == len(position) else (), name=f"SET: {dotted}")
    except RunnerError as error:
        checker.problems.append(str(error))
        return resolved
    nested: Any = value
    current: Any = resolved
    for part in position[:depth]:
        current = current[part]
    if depth < len(position):
        nested = copy.deepcopy(current)
        if nested is None:
            nested = {}
        problem = set_in(nested, position[depth:], value)
        if problem is not None:
            checker.fail(position, _set, problem)
            return resolved
    fitted = checker.fit(known, current, nested, position[:depth], _set)
    set_in(resolved, position[:depth], fitted)
    return resolved


def _set(position: Position) -> str:
    return "SET"


def differences(before: Any, after: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The dotted names whose values differ, with both values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from differences(before.get(key), after.get(key), f"{at}.{key}" if at else str(key))
    elif before != after or isinstance(before, bool) is not isinstance(after, bool):  # 1 is not true
        yield at, before, after
