"""Models that are shared across projects: released checkpoints, and weights from outside.

<models>/<name>/v1/weights.pt     the file as it came: a checkpoint, a state dict …
                   card.json      what it is and where it comes from
                   card.md        the same for people
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.jsonio import read_json
from runner.contract.names import check_name, unknown

CARD_JSON, CARD_MD, WEIGHTS = "card.json", "card.md", "weights"
PREFIX = "models"
SCHEMA_VERSION = 1
_COUNTED = re.compile(r"v([1-9][0-9]*)\Z")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One version of one model."""

    name: str
    version: str
    folder: Path
    card: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """The weights."""
        return self.folder / str(self.card["file"])

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return str(self.card["sha256"])

    @property
    def reference(self) -> str:
        """`models/<name>/<version>`: what a resolved config names."""
        return f"{PREFIX}/{self.name}/{self.version}"


def parse_reference(text: str) -> tuple[str, str | None]:
    """The name and version of `models/<name>` or `models/<name>/<version>`.

    Raises:
        RunnerError: another form.
    """
    parts = text.split("/")
    if parts[0] != PREFIX or len(parts) not in (2, 3):
        raise RunnerError(f"init_from={text!r}: expected {PREFIX}/<name> or {PREFIX}/<name>/<version>")
    name = check_name("init_from: name", parts[1])
    return name, check_name("init_from: version", parts[2]) if len(parts) == 3 else None


def find_model(root: Path, text: str) -> Model:
    """The model that `init_from` means; without a version the newest: the highest v<n>.

    Raises:
        RunnerError: there is none; those there are, are listed.
    """
    name, version = parse_reference(text)
    have = versions(root / name)
    if not have:
        raise unknown("init_from", name, [path.name for path in _folders(root) if versions(path)])
    if version is None:
        version = have[-1]
    elif version not in have:
        raise RunnerError(f"init_from={text!r}: {name} has no version {version} (have: {', '.join(have)})")
    folder = root / name / version
    card = read_json(folder / CARD_JSON)
    if (
        not isinstance(card, dict)
        or card.get("schema_version") != SCHEMA_VERSION
        or not {"file", "sha256"} <= card.keys()
    ):
        raise RunnerError(f"{folder / CARD_JSON}: not the card of a model that this runner can read; release it again")
    if Path(str(card["file"])).name != card["file"] or not (folder / str(card["file"])).is_file():
        raise RunnerError(f"{folder}: its weights {card['file']!r} are not there; release it again")
    return Model(name=name, version=version, folder=folder, card=card)


def versions(folder: Path) -> list[str]:
    """The complete versions of a model: names of one's own first, then v1, v2 …, the newest last."""
    names = [path.name for path in _folders(folder) if (path / CARD_JSON).is_file()]
    return sorted(names, key=lambda name: (number_of(name), name))


def number_of(version: str) -> int:
    """n of v<n>; 0 for any other name."""
    match = _COUNTED.match(version)
    return int(match[1]) if match else 0


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
