"""Sweeps: a key with one underscore at its end and a list of values stands for one run per value.

    learning_rate_: [0.1, 0.01]      4 points: every combination, in the order of the file, the first key slowest
    model: {n_hidden_: [64, 128]}

Such keys work at any depth, in mappings inside lists, and inside the values of another sweep key. Every other list is
plain data. Leading underscores and all but one of the last are part of the name.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.schema import join, shown
from runner.contract.yaml12 import Document, Position

MAX_POINTS = 100_000


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination of a sweep's values."""

    number: int
    """Counted from 1, in the order of the file."""
    values: Mapping[str, Any]
    """The swept keys by dotted name, without the underscore."""
    config: Mapping[str, Any]
    """The experiment's config with these values, ready for `resolve`."""


def is_sweep(raw: Any) -> bool:
    """Whether a key anywhere in `raw` ends with an underscore."""
    if isinstance(raw, Mapping):
        return any(_is_swept(key) or is_sweep(value) for key, value in raw.items())
    return isinstance(raw, list | tuple) and any(is_sweep(item) for item in raw)


def expand(raw: Mapping[str, Any], *, name: str = "the sweep's config") -> list[Point]:
    """The points of an experiment's config, the first key slowest; one without values if nothing is swept.

    Raises:
        RunnerError: a swept key without a list or with an empty one, one that is also set plainly, or too many points.
            All of them in one line.
    """
    problems = list(_problems(raw, (), raw.where if isinstance(raw, Document) else lambda position: name))
    if problems:
        raise RunnerError("; ".join(problems))
    name = raw.name if isinstance(raw, Document) else name
    count = _count(raw)
    if count > MAX_POINTS:
        raise RunnerError(
            f"{name}: makes {count:,} points; expected at most {MAX_POINTS:,}; sweep fewer keys or values"
        )
    lines = (
        {tuple(map(_plain_name, position)): line for position, line in raw.lines.items()}
        if isinstance(raw, Document)
        else {}
    )
    points = []
    for number, (values, config) in enumerate(_variants(raw, ()), start=1):
        kept = Document(config, name=raw.name, lines=lines) if isinstance(raw, Document) else config
        points.append(Point(number=number, values=values, config=kept))
    return points


def _is_swept(key: Any) -> bool:
    return isinstance(key, str) and key.endswith("_")


def _plain_name(key: Any) -> Any:
    return key[:-1] if _is_swept(key) else key


def _problems(value: Any, at: Position, where: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            position = (*at, key)
            if _is_swept(key):
                yield from (f"{where(position)}: {problem}" for problem in _problems_of_key(value, key, position))
            yield from _problems(inner, position, where)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _problems(item, (*at, index), where)


def _problems_of_key(siblings: Mapping[str, Any], key: str, position: Position) -> Iterator[str]:
    name, plain, values = join(position), _plain_name(key), siblings[key]
    if not plain:
        yield f"{name!r} is an underscore and no name; expected the name of the key to sweep before it"
    if plain in siblings:
        yield f"{name} sweeps {plain!r}, which is also set plainly; keep one of the two"
    if not isinstance(values, list | tuple):
        example = f"[{values}]" if isinstance(values, int | float | str) else "[1, 2]"
        yield (
            f"{name} is {shown(values)}; a key that ends with an underscore is swept and takes a list of values: "
            f"write {key}: {example}, or {plain} without the underscore"
        )
    elif not values:
        yield f"{name} is an empty list, which makes no run at all; expected at least one value"


def _count(value: Any) -> int:
    if isinstance(value, Mapping):
        return math.prod(
            sum(_count(item) for item in inner) if _is_swept(key) else _count(inner) for key, inner in value.items()
        )
    return math.prod(_count(item) for item in value) if isinstance(value, list | tuple) else 1


_Variant = tuple[dict[str, Any], Any]
"""The swept values that lead to a variant, and the variant itself."""


def _variants(value: Any, at: Position) -> Iterator[_Variant]:
    """Every variant of a value; the last part changes fastest."""
    if isinstance(value, Mapping):
        entries = [_entry(key, inner, (*at, _plain_name(key))) for key, inner in value.items()]
        for combination in itertools.product(*entries):
            mapping = {_plain_name(key): variant for key, (_, variant) in zip(value, combination, strict=True)}
            yield _united(combination), mapping
    elif isinstance(value, list | tuple):
        items = [list(_variants(item, (*at, index))) for index, item in enumerate(value)]
        for combination in itertools.product(*items):
            yield _united(combination), [variant for _, variant in combination]
    else:
        yield {}, value


def _entry(key: str, value: Any, position: Position) -> list[_Variant]:
    if not _is_swept(key):
        return list(_variants(value, position))
    return [
        ({join(position): variant, **values}, variant)
        for item in value
        for values, variant in _variants(item, position)
    ]


def _united(combination: tuple[_Variant, ...]) -> dict[str, Any]:
    return {name: value for values, _ in combination for name, value in values.items()}
