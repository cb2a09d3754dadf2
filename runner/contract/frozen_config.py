"""The object that a run reads its settings from: frozen, complete, and aware of what was read."""

import mmap
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from runner.contract.schema import SECTIONS, join
from runner.contract.suggest import hint
from runner.contract.yaml12 import Position


class Config(Mapping[str, Any]):
    """A frozen mapping whose keys are attributes too: `config.model.n_hidden`, `config["learning_rate"]`.

    Nested mappings are Configs, lists are tuples. It notes which keys were read (see `unread`), in memory that
    forked DataLoader workers share. Copies are the object itself. Pickling counts as reading everything, because what
    the other process reads cannot be seen.
    """

    __slots__ = ("_leaves", "_reads", "_values")

    _values: dict[str, Any]
    _leaves: dict[str, int]
    _reads: "_Reads"

    def __init__(self, values: Mapping[str, Any]) -> None:
        reads = _Reads()
        self._fill(values, (), reads)
        reads.allocate()

    def _fill(self, values: Mapping[str, Any], at: Position, reads: "_Reads") -> None:
        leaves: dict[str, int] = {}
        frozen: dict[str, Any] = {}
        for key, value in values.items():
            frozen[key], has_configs = _freeze(value, (*at, key), reads)
            if not has_configs:
                leaves[key] = reads.add((*at, key))
        object.__setattr__(self, "_values", frozen)
        object.__setattr__(self, "_leaves", leaves)
        object.__setattr__(self, "_reads", reads)

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        if key in self._leaves:
            self._reads.mark(self._leaves[key])
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the config has no key {name!r}; {hint(name, self._values)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Config):
            return self._values == other._values
        return isinstance(other, Mapping) and snapshot(self) == other

    def __hash__(self) -> int:
        return hash(frozenset(self._values))

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"the config is frozen: {name!r} cannot be set; keep what changes in an attribute of your own object, "
            f"or give the value before the launch (an experiment's file, or SET)"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"the config is frozen: {name!r} cannot be deleted")

    def __repr__(self) -> str:
        return f"Config({snapshot(self)!r})"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __copy__(self) -> "Config":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Config":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (Config, (self.to_dict(),))

    def to_dict(self) -> dict[str, Any]:
        """The values in plain dicts and lists. Every key of it counts as read (`snapshot` does not count)."""
        for config in configs_in(self):
            for leaf in config._leaves.values():
                config._reads.mark(leaf)
        return snapshot(self)


class _Reads:
    """One byte per leaf of a config tree: was it read? In shared memory, so that a forked child's reads count."""

    def __init__(self) -> None:
        self.names: list[Position] = []
        self._flags: mmap.mmap | None = None

    def add(self, position: Position) -> int:
        self.names.append(position)
        return len(self.names) - 1

    def allocate(self) -> None:
        self._flags = mmap.mmap(-1, max(1, len(self.names)))

    def mark(self, leaf: int) -> None:
        if self._flags is not None:
            self._flags[leaf] = 1

    def unmark(self, leaf: int) -> None:
        if self._flags is not None:
            self._flags[leaf] = 0

    def was_read(self, leaf: int) -> bool:
        return self._flags is not None and self._flags[leaf] == 1


def _freeze(value: Any, at: Position, reads: _Reads) -> tuple[Any, bool]:
    """The frozen form of a value, and whether it holds Configs (which note their own reads)."""
    if isinstance(value, Mapping):
        config = Config.__new__(Config)
        config._fill(snapshot(value) if isinstance(value, Config) else value, at, reads)
        return config, bool(value)
    if isinstance(value, list | tuple):
        items = [_freeze(item, (*at, index), reads) for index, item in enumerate(value)]
        return tuple(item for item, _ in items), any(has_configs for _, has_configs in items)
    return value, False


def configs_in(value: Any) -> Iterator[Config]:
    """The Configs in a frozen value, itself included."""
    if isinstance(value, Config):
        yield value
        for inner in value._values.values():
            yield from configs_in(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from configs_in(inner)


def snapshot(config: Config) -> dict[str, Any]:
    """The values in plain dicts and lists, for a record: nothing counts as read."""
    plain: dict[str, Any] = _thaw(config)
    return plain


def _thaw(value: Any) -> Any:
    if isinstance(value, Config):
        return {key: _thaw(inner) for key, inner in value._values.items()}
    return [_thaw(inner) for inner in value] if isinstance(value, tuple) else value


def unread(config: Config) -> list[str]:
    """The dotted names of the keys below `config` that nothing has read so far. Built-in keys are left out."""
    leaves = sorted(leaf for inner in configs_in(config) for leaf in inner._leaves.values())
    reads = config._reads
    return [
        join(reads.names[leaf]) for leaf in leaves if reads.names[leaf][0] not in SECTIONS and not reads.was_read(leaf)
    ]


def was_read(config: Config, key: str) -> bool:
    """Whether the key, no mapping, of the top level was read."""
    return key in config._leaves and config._reads.was_read(config._leaves[key])


def forget_read(config: Config, key: str) -> None:
    """Let a key, no mapping, of the top level count as not read: whoever read it does not count."""
    if key in config._leaves:
        config._reads.unmark(config._leaves[key])
