"""A small house whose packages are wheels made here: real pip, real uv, real images, and no index on the network."""

import base64
import hashlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from runner.host.images.pins import read_pins
from runner.host.images.wheels import installer

ROOT = Path(__file__).resolve().parents[3]
MakeWheel = Callable[..., Path]


def write_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), text: str = "") -> Path:
    """A wheel with one module; the same arguments give the same bytes."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{module}.py": f"VERSION = {version!r}\n{text}",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content.encode())}\n")
    files[f"{info}/RECORD"] = "".join(lines) + f"{info}/RECORD,,\n"
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), content)
    return wheel


def pin_text(wheel: Path) -> str:
    """The line of a lock for a wheel."""
    name, version, *_ = wheel.name.split("-")
    return (
        f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    )


class SmallHouse:
    """docker/ as it is, a bare base of one package, and projects whose locks are written by hand."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.root = folder
        self.wheels = wheels
        for path in sorted((ROOT / "docker").rglob("*")):
            if path.is_file():
                self.write(str(path.relative_to(ROOT)), path.read_text())
        self.write("requirements/install.in", "uv\n")
        self.write("requirements/install.txt", (ROOT / "requirements/install.txt").read_text())
        self.write("requirements/bare.in", "below\n")
        self.below = write_wheel(wheels, "below", "1.0")
        self.write("requirements/bare.txt", pin_text(self.below))
        (self.root / "projects").mkdir()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the house."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def project(self, name: str, *wheels: Path) -> None:
        """A project on the bare base whose lock holds these wheels."""
        self.write(f"projects/{name}/project.yml", f"base: bare\ntrain: [python, -m, projects.{name}.train]\n")
        self.write(f"requirements/{name}.in", "".join(wheel.name.split("-")[0] + "\n" for wheel in wheels))
        self.write(f"requirements/{name}.txt", "".join(map(pin_text, wheels)))


@pytest.fixture
def wheel_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder that pip finds wheels in."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


@pytest.fixture
def make_wheel(wheel_folder: Path) -> MakeWheel:
    """Make a wheel that pip can find."""

    def make(name: str, version: str, requires: tuple[str, ...] = (), text: str = "") -> Path:
        return write_wheel(wheel_folder, name, version, requires, text)

    return make


@pytest.fixture
def house(tmp_path: Path, wheel_folder: Path) -> SmallHouse:
    """A house of its own."""
    return SmallHouse(tmp_path / "house", wheel_folder)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all, which holds the locked installer: the one thing fetched with the caller's own pip settings."""
    folder = tmp_path_factory.mktemp("cache")
    with (folder / "installer.log").open("w") as handle:
        installer(read_pins(ROOT / "requirements/install.txt"), "linux/amd64", folder, print, handle)
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[str]]:
    """Where commands write what they say."""
    with (tmp_path / "test.log").open("w", buffering=1) as handle:
        yield handle
