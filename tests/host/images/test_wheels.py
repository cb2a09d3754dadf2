"""Wheelhouses: the host's own pip fetches, hashes are checked, a folder is complete or absent."""

import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from runner.contract.errors import RunnerError
from runner.host.images import wheels
from runner.host.images.pins import parse_pins, read_pins
from runner.host.images.wheels import wheelhouse

PLATFORM = "linux/amd64"
BARE = "requirements/bare.txt"


def test_one_folder_with_exactly_the_wheels_of_a_lock(house: Any, tmp_path: Path, log: IO[str]) -> None:
    said: list[str] = []
    pins = read_pins(house.root / BARE)
    folder = wheelhouse(pins, PLATFORM, tmp_path, said.append, log)
    assert [path.name for path in folder.iterdir()] == ["below-1.0-py3-none-any.whl"]
    assert said == ["wheels: fetching 1 for Python 3.11 on linux/amd64", "wheels 1/1: below 1.0"]
    assert wheelhouse(pins, PLATFORM, tmp_path, said.append, log) == folder
    assert len(said) == 2


def test_what_another_wheelhouse_holds_is_linked_and_asked_of_nobody(
    house: Any, make_wheel: Any, tmp_path: Path, log: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    house.project("toy", house.below, make_wheel("above", "1.5"))
    pins = read_pins(house.root / "requirements/toy.txt")
    first = wheelhouse(pins, PLATFORM, tmp_path, print, log)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    second = wheelhouse(pins[1:], PLATFORM, tmp_path, pytest.fail, log)
    name = "below-1.0-py3-none-any.whl"
    assert (first / name).stat().st_ino == (second / name).stat().st_ino


def test_a_file_with_another_hash_is_refused_and_nothing_is_left(
    house: Any, make_wheel: Any, tmp_path: Path, log: IO[str]
) -> None:
    house.project("toy", make_wheel("above", "1.5"))
    pins = read_pins(house.root / "requirements/toy.txt")
    make_wheel("above", "1.5", text="EVIL = True\n")
    with pytest.raises(
        RunnerError, match=r"^wheels: pip cannot fetch them: .*(Got|MATCH).*; see `pip config list`, or the log "
    ):
        wheelhouse(pins, PLATFORM, tmp_path, print, log)
    assert not [path for path in (tmp_path / "wheels").glob("*/") if path.suffix != ".partial"]


def test_a_tampered_file_left_by_an_earlier_try_is_not_used(house: Any, tmp_path: Path, log: IO[str]) -> None:
    pins = read_pins(house.root / BARE)
    folder = wheelhouse(pins, PLATFORM, tmp_path, print, log)
    partial = folder.with_suffix(".partial")
    folder.rename(partial)
    (partial / "below-1.0-py3-none-any.whl").write_bytes(b"torn")
    again = wheelhouse(pins, PLATFORM, tmp_path, print, log)
    assert (again / "below-1.0-py3-none-any.whl").read_bytes() == house.below.read_bytes()


def test_two_processes_fetch_once(house: Any, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom runner.host.images.pins import read_pins\n"
        "from runner.host.images.wheels import wheelhouse\n"
        "wheelhouse(read_pins(Path(sys.argv[1])), 'linux/amd64', Path(sys.argv[2]), print, open(sys.argv[3], 'w'))\n"
    )
    argv = [sys.executable, "-c", script, str(house.root / BARE), str(tmp_path)]
    both = [subprocess.Popen([*argv, str(tmp_path / f"{n}.log")], stdout=subprocess.PIPE, text=True) for n in range(2)]
    output = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert output.count("wheels: fetching") == 1


def test_pytorchs_own_index_is_asked_for_a_local_build_that_is_nowhere_else(
    house: Any, make_wheel: Any, tmp_path: Path, log: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel("framework", "2.0+cpu")
    index = tmp_path / "index" / "framework"
    index.mkdir(parents=True)
    wheel.rename(index / wheel.name)
    (index / "index.html").write_text(f'<a href="{wheel.name.replace("+", "%2B")}">{wheel.name}</a>')
    house.project("toy", index / wheel.name)
    monkeypatch.delenv("PIP_NO_INDEX")  # which would forbid the fallback as well
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}/empty")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setattr(wheels, "TORCH_CPU_INDEX", f"file://{index.parent}")
    said: list[str] = []
    folder = wheelhouse(read_pins(house.root / "requirements/toy.txt"), PLATFORM, tmp_path, said.append, log)
    assert [path.name for path in folder.iterdir()] == [wheel.name]
    assert said[1].startswith("wheels: no +cpu build of PyTorch in your indexes; asking file://")


def test_a_package_that_is_nowhere_is_no_reason_to_ask_pytorch(house: Any, tmp_path: Path, log: IO[str]) -> None:
    pins = parse_pins("nowhere-to-be-found==1.0 --hash=sha256:" + "a" * 64, "x")
    said: list[str] = []
    with pytest.raises(RunnerError, match=r"No matching distribution found for nowhere-to-be-found===1\.0"):
        wheelhouse(pins, PLATFORM, tmp_path, said.append, log)
    assert not [line for line in said if "PyTorch" in line]


def test_an_unknown_platform_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"^platform 'plan9/sparc': expected one of linux/amd64, linux/arm64"):
        wheels.platform_arguments("plan9/sparc")
