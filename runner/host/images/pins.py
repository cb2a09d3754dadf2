"""Locked requirements as values: name, version and the sha256 of every file that may be installed for it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from runner.contract.errors import RunnerError
from runner.contract.jsonio import sha256_of

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*={2,3}\s*([^\s;]+)\s*(.*)$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True, order=True)
class Pin:
    """One locked distribution."""

    name: str
    """Normalised: lower case, hyphens."""
    version: str
    hashes: tuple[str, ...]
    """sha256 of the files that may be installed, sorted."""

    @property
    def public(self) -> str:
        """The version without its local part: 2.13.0 for 2.13.0+cpu."""
        return self.version.split("+")[0]

    @property
    def line(self) -> str:
        """The requirement for an installer. Three signs: the same version with another local part is another thing."""
        return " ".join([f"{self.name}==={self.version}", *(f"--hash=sha256:{digest}" for digest in self.hashes)])


@lru_cache(maxsize=32)
def parse_pins(text: str, source: str) -> tuple[Pin, ...]:
    """The pins of a lock, sorted by name.

    Raises:
        RunnerError: a line is no pin, has no hash, or names an index; `source` is named.
    """
    pins = {}
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _PIN.match(line)
        hashes = tuple(sorted(set(_HASH.findall(line))))
        if match is None or not hashes:
            raise RunnerError(f"{source}: {line[:80]!r} is not name==version with --hash=sha256:…; run `make lock`")
        name = normal_name(match[1])
        pins[name] = Pin(name=name, version=match[2], hashes=hashes)
    return tuple(sorted(pins.values()))


def read_pins(path: Path) -> tuple[Pin, ...]:
    """The pins of a lock file.

    Raises:
        RunnerError: there is no such file, or it is not a lock.
    """
    try:
        return parse_pins(path.read_text(), str(path))
    except FileNotFoundError:
        raise RunnerError(f"{path}: no such lock; write {path.with_suffix('.in').name} and run `make lock`") from None


def normal_name(name: str) -> str:
    """A distribution's name in the form that is compared: `Foo._Bar` and `foo-bar` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins_sha256(pins: Iterable[Pin]) -> str:
    """The identity of an environment: sha256 over names, versions and hashes; comments and order do not count."""
    return sha256_of(sorted([pin.name, pin.version, list(pin.hashes)] for pin in pins))


def thin(pins: Sequence[Pin], below: Sequence[Pin], source: str) -> tuple[Pin, ...]:
    """The pins that the environment below does not hold yet.

    Raises:
        RunnerError: one is below in another version; a lock that is out of date.
    """
    held = {pin.name: pin for pin in below}
    for pin in pins:
        if pin.name in held and held[pin.name].public != pin.public:
            raise RunnerError(
                f"{source}: pins {pin.name} {pin.version}, but its base has {held[pin.name].version}; run `make lock`"
            )
    return tuple(pin for pin in pins if pin.name not in held)


def requirements_text(pins: Sequence[Pin]) -> str:
    """A requirements file for an installer, one line a pin."""
    return "".join(pin.line + "\n" for pin in pins)
