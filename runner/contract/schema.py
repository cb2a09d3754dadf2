"""What a config may hold: the keys that every project has, and whether a value fits the default it replaces."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.contract.suggest import hint
from runner.contract.yaml12 import Position, type_name


@dataclass(frozen=True, kw_only=True)
class Builtin:
    """A key that every project has without listing it."""

    default: Any
    types: tuple[type, ...]
    meaning: str
    choices: tuple[str, ...] = ()
    """The words allowed; empty: any."""
    element: type | None = None
    """The type of each element, if the value is a list."""
    minimum: float | None = None
    """The least number allowed."""


_NULL = type(None)

BUILTIN: Mapping[str, Builtin] = {
    "seed": Builtin(default=0, types=(int,), minimum=0, meaning="what every random number of the run comes from"),
    "tag": Builtin(
        default="", types=(str,), meaning="the last part of the run's name; by default the experiment's name"
    ),
    "dataset": Builtin(default=None, types=(str, _NULL), meaning="the data set; by default project.yml's"),
    "data": Builtin(default="full", types=(str,), choices=("full", "toy"), meaning="the data set's variant"),
    "init_from": Builtin(
        default=None, types=(str, _NULL), meaning="models/<name>[/<version>]: weights that the training begins with"
    ),
    "gpu": Builtin(
        default="auto",
        types=(str, bool),
        choices=("auto",),
        meaning="compute on a GPU; auto: where the launch gets one",
    ),
    "resources.gpus": Builtin(
        default="auto", types=(str, int, list), minimum=0, meaning="auto, all, none, a number, indices (0,1) or UUIDs"
    ),
    "resources.threads": Builtin(
        default=None, types=(int, _NULL), minimum=1, meaning="threads of OMP, MKL and OpenBLAS; null: from the machine"
    ),
    "resources.memory_gib": Builtin(
        default=None, types=(float, _NULL), minimum=0.01, meaning="hard memory limit, GiB; null: none"
    ),
    "resources.cpus": Builtin(default=None, types=(float, _NULL), minimum=0.01, meaning="CPUs it may use; null: all"),
    "resources.shm_gib": Builtin(
        default=None, types=(float, _NULL), minimum=0.001, meaning="shared memory, GiB; null: from the machine"
    ),
    "resources.tmp_gib": Builtin(
        default=None, types=(float, _NULL), minimum=0.001, meaning="size of /tmp, GiB; null: from the machine"
    ),
    "resources.grace_s": Builtin(
        default=30.0, types=(float,), minimum=0, meaning="seconds between the request to stop and the kill"
    ),
    "resources.timeout_s": Builtin(
        default=None, types=(float, _NULL), minimum=0, meaning="wall-clock limit, seconds from the start; null: none"
    ),
    "resources.env": Builtin(default=[], types=(list,), element=str, meaning="variables passed in, by name"),
    "resources.mounts": Builtin(
        default=[],
        types=(list,),
        element=str,
        meaning="further folders, read-only, by name; runner.yml says where they lie",
    ),
    "resources.processes": Builtin(
        default=1, types=(int,), minimum=1, meaning="processes of one launch, as torchrun has them"
    ),
}
"""By dotted name. A project's default.yml may give another default, never another type."""


SECTIONS = frozenset(dotted.split(".")[0] for dotted in BUILTIN)
"""The built-in keys at the top of a config."""

_AT: Mapping[Position, Builtin] = {tuple(dotted.split(".")): builtin for dotted, builtin in BUILTIN.items()}


def builtin_defaults(*, tag: str, dataset: Any) -> dict[str, Any]:
    """The built-in keys as a nested mapping, with the two defaults that depend on the project and experiment."""
    values: dict[str, Any] = {}
    for dotted, builtin in BUILTIN.items():
        *sections, key = dotted.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[key] = {"tag": tag, "dataset": dataset}.get(dotted, builtin.default)
    return values


def join(position: Position) -> str:
    """`a.b.0.c`: a position as people write it in SET."""
    return ".".join(str(part) for part in position)


def shown(value: Any) -> str:
    """A value as a message shows it: one line, not long, with its type."""
    if value is None:
        return "null"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type_name(value)})"


def overlay(base: Any, upper: Any) -> Any:
    """`upper` on top of `base`: mappings are merged at every depth, anything else is replaced."""
    if not (isinstance(base, Mapping) and isinstance(upper, Mapping)):
        return upper
    return {**base, **{key: overlay(base[key], value) if key in base else value for key, value in upper.items()}}


def types_at(position: Position, default: Any) -> tuple[type, ...]:
    """The types that a value may have where `default` stands; empty: any."""
    builtin = _AT.get(position)
    if builtin is not None:
        return builtin.types
    return () if default is None else (dict,) if isinstance(default, Mapping) else (type(default),)


Where = Callable[[Position], str]
"""Says where a value was written: `configs/toy.yml:3`."""


class Checker:
    """Fits values to the defaults they replace and gathers what is wrong, so that all of it is said at once."""

    def __init__(self, default_where: Where, *, trainer: bool = False) -> None:
        """`trainer`: the project has the Trainer's keys too, without listing them."""
        self.problems: list[str] = []
        self._default_where, self._trainer = default_where, trainer

    def fit(self, default: Any, current: Any, value: Any, position: Position, where: Where) -> Any:
        """`value` in the type of `default`, on top of `current`; where it does not fit, a problem and `current`.

        An int stands for a float. A float stands for an int where it is one exactly (`n_iterations: 1e4`). A bool is
        never a number. The identity of a config rests on this: one value has one type, so one encoding.
        """
        builtin = _AT.get(position)
        if builtin is None and default is None:
            return self._storable(value, position, where)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            if not default:
                return overlay(current, self._storable(value, position, where))
            return self._fit_mapping(default, current, value, position, where)
        fitted = _coerce(value, types_at(position, default))
        if fitted is _NO:
            self.fail(position, where, f"is {shown(value)}; expected {self._expectation(default, position)}")
            return current
        fitted = self._storable(fitted, position, where)
        if isinstance(fitted, list):
            fitted = self._fit_elements(_element_type(builtin, default), fitted, position, where)
        elif builtin is not None:
            self._check_limits(builtin, fitted, position, where)
        return fitted

    def fail(self, position: Position, where: Where, problem: str) -> None:
        """Note a problem of the value at `position`."""
        self.problems.append(f"{where(position)}: {join(position)} {problem}")

    def unknown(self, position: Position, where: Where, known: Mapping[str, Any]) -> None:
        """Note a key that the defaults do not have."""
        key, section = str(position[-1]), join(position[:-1])
        problem = f"{where(position)}: unknown key {join(position)!r}"
        if key.endswith("_") and key[:-1] in known:
            self.problems.append(f"{problem}; {key[:-1]!r} with an underscore at its end is a sweep; start it as one")
        else:
            inside = f" under {section!r}" if section else ""
            source = f"{self._default_where(position[:-1])} has every key{inside}"
            if self._trainer and len(position) == 1:
                source += " of the project, docs/trainer.md those of the Trainer"
            if len(position) > 1 and all((*position[:-1], name) in _AT for name in known):
                source = "every project has these"
            self.problems.append(f"{problem}; {hint(key, known)} ({source})")

    def _fit_mapping(
        self, default: Mapping[str, Any], current: Any, value: Mapping[str, Any], position: Position, where: Where
    ) -> dict[str, Any]:
        fitted = dict(current)
        for key, inner in value.items():
            at = (*position, key)
            if key in default:
                fitted[key] = self.fit(default[key], current[key], inner, at, where)
            else:
                self.unknown(at, where, default)
        return fitted

    def _fit_elements(self, kind: type | None, values: list[Any], position: Position, where: Where) -> list[Any]:
        if kind is None:
            return values
        fitted = []
        for index, value in enumerate(values):
            element = _coerce(value, (kind,))
            if element is _NO:
                expected = f"expected {_named((kind,))}, as every element of {join(position)}"
                self.fail((*position, index), where, f"is {shown(value)}; {expected}")
            fitted.append(element)
        return fitted

    def _check_limits(self, builtin: Builtin, value: Any, position: Position, where: Where) -> None:
        if isinstance(value, str) and builtin.choices and value not in builtin.choices:
            switch = ["true", "false"] if bool in builtin.types else []
            *others, last = [*builtin.choices, *switch]
            self.fail(position, where, f"is {value!r}; expected {', '.join(others)} or {last}")
        elif isinstance(value, int | float) and builtin.minimum is not None and value < builtin.minimum:
            self.fail(position, where, f"is {value}; expected at least {builtin.minimum}")

    def _expectation(self, default: Any, position: Position) -> str:
        builtin = _AT.get(position)
        if builtin is not None:
            return f"{_named(builtin.types)} ({builtin.meaning})"
        origin = f"like its default {shown(default).rpartition(' (')[0]} in {self._default_where(position)}"
        return f"{type_name(default)}, {origin}"

    def _storable(self, value: Any, position: Position, where: Where) -> Any:
        """`value` in fresh dicts and lists; a problem for what JSON cannot hold."""
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    self.fail((*position, key), where, f"has {type_name(key)} as its key; keys are text")
            return {key: self._storable(inner, (*position, key), where) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._storable(inner, (*position, index), where) for index, inner in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            self.fail(position, where, f"is {value}, which JSON cannot hold; write null or a large number")
        elif isinstance(value, str) and not _is_text(value):
            self.fail(position, where, f"is {shown(value)}, which is not valid UTF-8")
        elif value is not None and type(value) not in (bool, int, float, str):
            self.fail(position, where, f"is {shown(value)}; expected a value that YAML can hold")
        return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_NO = object()
"""What `_coerce` returns for a value that does not fit."""


def _coerce(value: Any, types: tuple[type, ...]) -> Any:
    if type(value) in types:
        return value
    if list in types and isinstance(value, tuple):
        return list(value)
    if float in types and type(value) is int and abs(value) <= 2**1000:
        return float(value)
    if int in types and type(value) is float and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    return _NO


def _element_type(builtin: Builtin | None, default: Any) -> type | None:
    """The one type that all elements of a default list have, int counting as float beside floats; or None."""
    if builtin is not None:
        return builtin.element
    kinds = {type(element) for element in default}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 and kinds <= {bool, int, float, str} else None


def _named(types: tuple[type, ...]) -> str:
    names = {
        _NULL: "null",
        bool: "a bool",
        int: "an int",
        float: "a float",
        str: "a str",
        list: "a list",
        dict: "a mapping",
    }
    *others, last = [names[kind] for kind in types]
    return f"{', '.join(others)} or {last}" if others else last
