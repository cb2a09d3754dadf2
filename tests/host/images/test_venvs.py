"""Virtual environments of the very same locks: complete or absent, exactly the pins, one maker at a time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from runner.contract.errors import RunnerError
from runner.host.images import venvs
from runner.host.images.pins import read_pins
from runner.host.images.recipes import recipe


def installed(folder: Path) -> dict[str, str]:
    """What the environment's own interpreter finds installed."""
    script = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    done = subprocess.run([folder / "bin/python", "-I", "-c", script], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_base_and_project_in_one_environment_and_nothing_else(house: Any, make_wheel: Any, cache: Path) -> None:
    house.project("toy", house.below, make_wheel("above", "1.5"))
    made = recipe(house.root, "toy", base="bare")
    said: list[str] = []
    folder = venvs.ensure(made, cache, said.append)
    assert installed(folder) == {"below": "1.0", "above": "1.5"}
    assert subprocess.check_output([folder / "bin/python", "-c", "import above; print(above.__file__)"]).startswith(
        bytes(folder.resolve())
    )
    assert list(folder.rglob("above*.pyc"))
    said.clear()
    assert venvs.ensure(made, cache, said.append) == folder
    assert said == []
    assert venvs.record(made).key[:32] == folder.name
    log = venvs.log_of(made, cache)
    assert log is not None
    assert "+ above==1.5" in log.read_text()


def test_a_half_made_one_is_made_again(house: Any, make_wheel: Any, cache: Path) -> None:
    house.project("toy", make_wheel("half", "1.0"))
    made = recipe(house.root, "toy", base="bare")
    folder = venvs.ensure(made, cache, print)
    (folder / ".complete").unlink()
    (folder / "bin/activate").write_text("torn")
    (folder / "stray").touch()
    assert venvs.ensure(made, cache, print) == folder
    assert installed(folder) == {"below": "1.0", "half": "1.0"}
    assert not (folder / "stray").exists()


def test_one_whose_interpreter_is_gone_is_made_again(house: Any, make_wheel: Any, cache: Path) -> None:
    house.project("toy", make_wheel("gone", "1.0"))
    made = recipe(house.root, "toy", base="bare")
    folder = venvs.ensure(made, cache, print)
    python = folder / "bin/python"
    python.unlink()
    python.symlink_to("/no/such/python3.11")
    assert "gone" in installed(venvs.ensure(made, cache, print))


def test_a_disk_that_fills_up_while_installing(house: Any, make_wheel: Any, cache: Path, tmp_path: Path) -> None:
    """It says so and how to go on; nothing half-made counts, and with room the same call makes it."""
    house.project("toy", make_wheel("large", "1.0", text="# " + "x" * 4_000_000))
    made = recipe(house.root, "toy", base="bare")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=False).returncode != 0:
        pytest.skip("may not mount a small disk here")
    try:
        (small / "wheels").symlink_to(cache / "wheels")
        with pytest.raises(RunnerError, match=r"disk full while installing; make room, or set CACHE_ROOT to a larger"):
            venvs.ensure(made, small, print)
        assert not list(small.glob("venvs/*/.complete"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert installed(venvs.ensure(made, small, print)) == {"below": "1.0", "large": "1.0"}
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_another_lock_is_another_environment(house: Any, make_wheel: Any, cache: Path) -> None:
    house.project("toy", make_wheel("changing", "1.0"))
    first = venvs.ensure(recipe(house.root, "toy", base="bare"), cache, print)
    house.project("toy", make_wheel("changing", "2.0"))
    second = venvs.ensure(recipe(house.root, "toy", base="bare"), cache, print)
    assert (installed(first)["changing"], installed(second)["changing"]) == ("1.0", "2.0")


def test_two_processes_make_it_once(house: Any, make_wheel: Any, cache: Path) -> None:
    house.project("toy", make_wheel("twice", "1.0"))
    script = (
        "import sys\nfrom pathlib import Path\nfrom runner.host.images import venvs\nfrom runner.host.images.recipes import recipe\n"
        "print(venvs.ensure(recipe(Path(sys.argv[1]), 'toy', base='bare'), Path(sys.argv[2]), print))\n"
    )
    argv = [sys.executable, "-c", script, str(house.root), str(cache)]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    output = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert output.count("installing 2 packages") == 1


def test_of_locks_makes_the_tools_environment(house: Any, cache: Path, log: IO[str]) -> None:
    house.write("requirements/tools.txt", (house.root / "requirements/bare.txt").read_text())
    assert installed(venvs.of_locks(house.root, ("tools",), cache, print, log)) == {"below": "1.0"}


def test_settings_of_the_users_uv_do_not_reach_it(
    house: Any, make_wheel: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.project("toy", make_wheel("apart", "1.0"))
    monkeypatch.setenv("UV_INDEX_URL", "https://u:secret@127.0.0.1:1/simple")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    assert "apart" in installed(venvs.ensure(recipe(house.root, "toy", base="bare"), cache, print))


def test_another_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venvs.wheels, "PYTHON", "3.8")
    with pytest.raises(
        RunnerError, match=r"^the host's Python is 3\.11 \(.*\), the locks are for 3\.8; install Python 3\.8"
    ):
        venvs.check_host()


def test_all_pins_of_a_real_recipe_are_one_environment() -> None:
    root = Path(__file__).resolve().parents[3]
    made = recipe(root, "cifar", base="cpu")
    names = [pin.name for pin in made.all_pins]
    assert len(names) == len(set(names))
    assert {pin.name for pin in read_pins(root / "requirements/cpu.txt")} < set(names)
