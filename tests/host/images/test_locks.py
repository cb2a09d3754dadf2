"""Locks: the ones of this repository, what a check finds, and making them with the real pip-tools from local wheels."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.contract.errors import RunnerError
from runner.host.images import locks
from runner.host.images.locks import check, lock
from runner.host.images.pins import read_pins

ROOT = Path(__file__).resolve().parents[3]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def copy_house(folder: Path) -> Path:
    """The requirements and projects of this repository, to be changed."""
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    for path in (ROOT / "projects").glob("*/project.yml"):
        (folder / "projects" / path.parent.name).mkdir(parents=True)
        shutil.copy(path, folder / "projects" / path.parent.name)
    return folder


def test_our_locks_agree_with_what_they_are_made_from() -> None:
    assert check(ROOT) == []


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_hashes_and_names_no_index(path: Path) -> None:
    assert all(pin.hashes for pin in read_pins(path))
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|@ ", path.read_text())


def test_the_torch_bases_differ_in_torch_alone() -> None:
    cpu, gpu = ({pin.name: pin for pin in read_pins(ROOT / f"requirements/{base}.txt")} for base in ("cpu", "gpu"))
    assert set(cpu) <= set(gpu)
    assert [name for name in cpu if cpu[name].version != gpu[name].version] == ["torch"]
    assert cpu["torch"].public == gpu["torch"].public
    assert cpu["torch"].hashes == ("6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "cifar.in",
            [
                "requirements/cifar.txt: requirements/cifar.in has changed since it was made; run `make lock PROJECT=cifar`"
            ],
        ),
        ("dev.in", ["requirements/dev.txt: requirements/dev.in has changed since it was made; run `make lock`"]),
    ],
)
def test_a_changed_in_file_is_named(tmp_path: Path, change: str, expected: list[str]) -> None:
    root = copy_house(tmp_path)
    with (root / "requirements" / change).open("a") as handle:
        handle.write("tqdm\n")
    found = check(root)
    assert [line for line in found if not line.startswith("requirements/check.txt")] == expected


def test_an_included_file_and_a_constraint_are_watched_too(tmp_path: Path) -> None:
    root = copy_house(tmp_path)
    (root / "requirements/torch.in").write_text("numpy\n")
    bare = root / "requirements/bare.txt"
    bare.write_text(bare.read_text().replace("pyyaml==6.0.3", "pyyaml==6.0.2"))
    found = check(root)
    assert "requirements/bare.txt: edited by hand; edit bare.in and run `make lock`" in found
    assert "requirements/gpu.txt: requirements/torch.in has changed since it was made; run `make lock`" in found
    assert (
        "requirements/digits.txt: requirements/bare.txt has changed since it was made; run `make lock PROJECT=digits`"
        in found
    )


def test_a_missing_lock_and_a_stray_one_are_named(tmp_path: Path) -> None:
    root = copy_house(tmp_path)
    (root / "requirements/cifar.txt").rename(root / "requirements/gone.txt")
    assert check(root) == [
        "requirements/cifar.txt: missing; run `make lock PROJECT=cifar`",
        "requirements/gone.txt: no .in or no project of this name; remove it",
    ]


def test_a_project_named_like_a_base_is_refused(house: Any) -> None:
    house.project("bare")
    with pytest.raises(RunnerError, match=r"^project 'bare': requirements/bare\.in is a base's"):
        locks.lock_names(house.root)


def test_a_project_is_locked_below_its_base(house: Any, make_wheel: Any, cache: Path) -> None:
    make_wheel("below", "2.0")
    make_wheel("above", "1.5", ("below>=1",))
    house.project("toy")
    house.write("requirements/toy.in", "above\n")
    said: list[str] = []
    assert lock(house.root, cache, said.append, project="toy") == [house.root / "requirements/toy.txt"]
    assert [(pin.name, pin.version) for pin in read_pins(house.root / "requirements/toy.txt")] == [
        ("above", "1.5"),
        ("below", "1.0"),
    ]
    assert not [line for line in check(house.root) if line.startswith("requirements/toy")]
    make_wheel("above", "1.6", ("below>=1",))
    assert lock(house.root, cache, said.append, project="toy") == []  # what is locked stays
    assert said[-1] == "lock toy: as it was"
    assert lock(house.root, cache, said.append, project="toy", upgrade=True) != []
    assert read_pins(house.root / "requirements/toy.txt")[0].version == "1.6"


def test_a_conflict_names_the_packages_and_changes_nothing(house: Any, make_wheel: Any, cache: Path) -> None:
    make_wheel("below", "2.0")
    make_wheel("above", "1.5", ("below>=2",))
    house.project("toy")
    house.write("requirements/toy.in", "above\n")
    before = (house.root / "requirements/toy.txt").read_bytes()
    with pytest.raises(RunnerError) as caught:
        lock(house.root, cache, print, project="toy")
    assert str(caught.value) == (
        "requirements/toy.in: conflict: above 1.5 depends on below>=2; The user requested (constraint) below==1.0; "
        "change requirements/toy.in and run `make lock PROJECT=toy`"
    )
    assert (house.root / "requirements/toy.txt").read_bytes() == before


def test_an_unknown_package_or_project_is_named(house: Any, cache: Path) -> None:
    house.project("toy")
    house.write("requirements/toy.in", "nowhere-to-be-found\n")
    with pytest.raises(RunnerError, match=r"^requirements/toy\.in: cannot be locked: .*nowhere-to-be-found.*; change "):
        lock(house.root, cache, print, project="toy")
    with pytest.raises(
        RunnerError, match=r"^PROJECT='tyo': no such project with a requirements/tyo\.in; there are: toy"
    ):
        lock(house.root, cache, print, project="tyo")
