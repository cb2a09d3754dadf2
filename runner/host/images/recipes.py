"""What an image or environment is made from, as a value: the texts of its Dockerfiles and locks, and the key they give.

The same texts lie in a run's inputs/, so that its environment can be made again from these alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner.contract.errors import RunnerError
from runner.contract.jsonio import pretty_json, read_json, sha256_of, write_atomic
from runner.host.images.locks import check_project_name
from runner.host.images.pins import Pin, parse_pins, pins_sha256, thin

KEY_VERSION = 1
"""Raised when what is built from the same texts changes."""
BASES = ("bare", "cpu", "gpu")
MODES = ("prod", "dev")
ORIGINS = ("registry", "debian")
"""Where the root image comes from: a registry, by digest; or Debian's packages, made into one on this machine."""
ENVIRONMENT = "environment.json"
_DESCRIBED = ("project", "base", "mode", "platform")
COMPILER = "g++"
DOCKERFILE_BASE = "docker/Dockerfile.base"
DOCKERFILE_PROD = "docker/Dockerfile.prod"
DOCKERFILE_DEV = "docker/Dockerfile.dev"
DEBIAN_SCRIPT = "docker/base/debian.sh"
INSTALL_SCRIPT = "docker/install.sh"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything an environment is made from."""

    project: str | None
    """Whose packages stand on the base; None for the base alone."""
    base: str
    """bare, cpu or gpu."""
    mode: str
    """prod or dev."""
    platform: str
    files: Mapping[str, str] = field(repr=False)
    """Text by path in the house: docker/Dockerfile.base, requirements/cpu.txt …"""

    def pins(self, lock: str) -> tuple[Pin, ...]:
        """The pins of one of its locks."""
        name = f"requirements/{lock}.txt"
        return parse_pins(self.files[name], name)

    @property
    def base_pins(self) -> tuple[Pin, ...]:
        """What the base image holds."""
        return self.pins(self.base)

    @property
    def project_pins(self) -> tuple[Pin, ...]:
        """What the project adds to its base."""
        if self.project is None:
            return ()
        return thin(self.pins(self.project), self.base_pins, f"requirements/{self.project}.txt")

    @property
    def dev_pins(self) -> tuple[Pin, ...]:
        """What dev adds to that. A package that the project has stays as the project pins it."""
        if self.mode != "dev":
            return ()
        held = {pin.name for pin in (*self.base_pins, *self.project_pins)}
        return tuple(pin for pin in self.pins("dev") if pin.name not in held)

    @property
    def all_pins(self) -> tuple[Pin, ...]:
        """The whole environment, sorted by name."""
        return tuple(sorted((*self.base_pins, *self.project_pins, *self.dev_pins)))

    @property
    def lock_sha256(self) -> str:
        """The identity of the whole environment's pins."""
        return pins_sha256(self.all_pins)

    @property
    def installer_pins(self) -> tuple[Pin, ...]:
        """What installs the others, and stays in no image."""
        return self.pins("install")

    @property
    def dockerfile_sha256(self) -> str:
        """The identity of the Dockerfiles and scripts it is built from."""
        return sha256_of({name: text for name, text in self.files.items() if name.startswith("docker/")})

    @property
    def root_reference(self) -> str:
        """The root image, pinned by digest; Dockerfile.base names it."""
        match = re.search(r"(?m)^ARG ROOT=(\S+@sha256:[0-9a-f]{64})$", self.files[DOCKERFILE_BASE])
        if match is None:
            raise RunnerError(
                f"{DOCKERFILE_BASE}: no line `ARG ROOT=<image>@sha256:<64 digits>`; pin the root image there"
            )
        return match[1]

    @property
    def debian_key(self) -> str:
        """The key of the root file system from Debian's packages."""
        return sha256_of({"version": KEY_VERSION, "script": self.files[DEBIAN_SCRIPT], "platform": self.platform})

    def base_key(self, origin: str) -> str:
        """The content key of the base image on a root of this origin."""
        root = self.root_reference if origin == "registry" else self.debian_key
        return self._key("base", DOCKERFILE_BASE, [origin, root, self.base], self.base_pins)

    def prod_key(self, origin: str) -> str:
        """The content key of the project's image. The project's name is no part: equal packages share one image."""
        return self._key("prod", DOCKERFILE_PROD, [self.base_key(origin)], self.project_pins)

    def key(self, origin: str) -> str:
        """The content key of the image a launch runs in."""
        if self.mode == "dev":
            return self._key("dev", DOCKERFILE_DEV, [self.prod_key(origin)], self.dev_pins)
        return self.prod_key(origin)

    def _key(self, kind: str, dockerfile: str, below: list[str], pins: tuple[Pin, ...]) -> str:
        """Dockerfile, packages, what is below, platform, and the installer."""
        texts = [self.files[dockerfile], self.files[INSTALL_SCRIPT]]
        locks = [pins_sha256(pins), pins_sha256(self.installer_pins)]
        return sha256_of([KEY_VERSION, kind, self.platform, texts, locks, below])

    def tag(self, origin: str) -> str:
        """The tag of the image a launch runs in. Prune spares what is tagged; what is launched is the id."""
        return image_tag(self.mode, self.key(origin))

    def base_tag(self, origin: str) -> str:
        """The tag of its base image."""
        return image_tag(f"base-{self.base}", self.base_key(origin))


def image_tag(name: str, key: str) -> str:
    """runner/<name>:<the first half of the key>."""
    return f"runner/{name}:{key[:32]}"


def recipe(root: Path, project: str | None, *, base: str, mode: str = "prod", platform: str = "linux/amd64") -> Recipe:
    """The recipe of a project's environment, from the house's files. A project without requirements is its base alone.

    Raises:
        RunnerError: no such base or mode, or a file is missing.
    """
    if base not in BASES or mode not in MODES:
        raise RunnerError(
            f"base {base!r}, mode {mode!r}: expected one of {', '.join(BASES)} and one of {', '.join(MODES)}"
        )
    if project is not None:
        check_project_name(project)
        if not any((root / f"requirements/{project}{end}").exists() for end in (".in", ".txt")):
            project = None
    names = _file_names(project, base, mode)
    files = {name: _read(root, name) for name in names}
    optional = [name.removesuffix(".txt") + ".in" for name in names if name.endswith(".txt")]
    optional += ["requirements/torch.in"]
    files |= {name: (root / name).read_text() for name in optional if (root / name).is_file()}
    return Recipe(project=project, base=base, mode=mode, platform=platform, files=files)


def _file_names(project: str | None, base: str, mode: str) -> list[str]:
    names = [DOCKERFILE_BASE, DOCKERFILE_PROD, DEBIAN_SCRIPT, INSTALL_SCRIPT]
    names += ["requirements/install.txt", f"requirements/{base}.txt"]
    names += [f"requirements/{project}.txt"] if project is not None else []
    return names + ([DOCKERFILE_DEV, "requirements/dev.txt"] if mode == "dev" else [])


def _read(root: Path, name: str) -> str:
    try:
        return (root / name).read_text()
    except FileNotFoundError:
        step = "run `make lock`" if name.endswith(".txt") else "it is part of the repository"
        raise RunnerError(f"{root / name}: not there, and the environment is made from it; {step}") from None


def inputs(recipe: Recipe, cache: Path) -> dict[str, Path]:
    """The files for a run's inputs/, by their name there. They lie in the cache, never to change: a run may link them."""
    described = {name: getattr(recipe, name) for name in _DESCRIBED}
    description = {"schema_version": 1, **described, "files": sorted(recipe.files)}
    texts = {**recipe.files, ENVIRONMENT: pretty_json(description).decode()}
    kept = {}
    for name, text in texts.items():
        kept[name] = cache / "recipes" / sha256_of(text) / Path(name).name
        if not kept[name].exists():
            kept[name].parent.mkdir(parents=True, exist_ok=True)
            write_atomic(kept[name], text.encode())
    return kept


def recipe_from_inputs(folder: Path) -> Recipe:
    """The recipe of a run, from its inputs/ alone.

    Raises:
        RunnerError: a file is missing, or it was written by a newer version.
    """
    described = read_json(folder / ENVIRONMENT)
    if described.get("schema_version") != 1:
        found = described.get("schema_version")
        raise RunnerError(
            f"{folder / ENVIRONMENT}: schema_version is {found}, this version reads 1; use the newer runner"
        )
    files = {name: _read(folder, name) for name in described["files"]}
    return Recipe(files=files, **{name: described[name] for name in _DESCRIBED})
