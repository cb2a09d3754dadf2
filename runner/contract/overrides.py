"""Settings given for one launch: `SET="learning_rate=1e-3 model.n_hidden=64"`. Nothing of it is ever shell text."""

from collections.abc import Sequence
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.yaml12 import load_yaml, type_name

_CLOSING = {"[": "]", "{": "}"}


def split_overrides(text: str) -> list[str]:
    """The settings in `a=1 b="x y" c=[1, 2]`: split at spaces, but for those inside a quoted or bracketed value.

    Quotes stay (YAML reads them) unless they are around a whole setting: `"tag=x y"`.

    Raises:
        RunnerError: a quote or bracket that is never closed.
    """
    settings: list[str] = []
    start = 0
    while start < len(text):
        if text[start].isspace():
            start += 1
            continue
        end = _end_of_setting(text, start)
        setting = text[start:end]
        settings.append(setting[1:-1] if setting[0] in "'\"" and setting[-1] == setting[0] else setting)
        start = end
    return settings


def _end_of_setting(text: str, start: int) -> int:
    """Where the setting that begins at `start` ends. A quote or bracket counts only where a value or item can begin."""
    expected: list[str] = []
    opens = True
    for index in range(start, len(text)):
        character = text[index]
        if expected and character == expected[-1]:
            expected.pop()
            opens = False
        elif expected and expected[-1] in "'\"":
            continue
        elif opens and character in "'\"":
            expected.append(character)
        elif character in _CLOSING and (opens or expected):
            expected.append(_CLOSING[character])
            opens = True
        elif character.isspace() and not expected:
            return index
        else:
            opens = (character in "=,:" and (bool(expected) or character == "=")) or (opens and character.isspace())
    if expected:
        raise RunnerError(f"SET: {text[start:]!r} has no closing {expected[-1]} for what it opens; add it")
    return len(text)


def value_of(raw: str, types: tuple[type, ...], *, name: str) -> Any:
    """The value of a setting, read as YAML. Where only text fits it is taken as it stands, unless it is in quotes.

    Raises:
        RunnerError: not YAML.
    """
    raw = raw.strip()
    quoted = len(raw) > 1 and raw[0] in "'\"" and raw[-1] == raw[0]
    if types == (str,) and not quoted:
        return raw
    value = load_yaml(raw, name=name)
    if str in types and type(value) not in types and isinstance(value, bool | int | float):
        return raw
    return value


def set_in(values: Any, position: Sequence[str | int], value: Any) -> str | None:
    """Set `values[a][b]…` in place, making mappings on the way; in lists by index. A problem, or None."""
    *way, last = position
    for part in way:
        if isinstance(values, dict) and values.get(str(part)) is None:
            values[str(part)] = {}
        step, problem = _step(values, part)
        if problem is not None:
            return problem
        values = values[step]
    if isinstance(values, dict):
        values[last] = value
        return None
    step, problem = _step(values, last)
    if problem is None:
        values[step] = value
    return problem


def _step(values: Any, part: str | int) -> tuple[Any, str | None]:
    if isinstance(values, dict):
        return part, None
    if not isinstance(values, list):
        return None, f"leads into {values!r}, {type_name(values)}, which has no key {str(part)!r}"
    if not str(part).isdecimal() or int(part) >= len(values):
        return None, f"leads into a list of {len(values)}, which has no index {str(part)!r}"
    return int(part), None
