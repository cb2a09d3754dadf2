"""What an environment is made from, and the key that gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.contract.errors import RunnerError
from runner.host.images.recipes import ORIGINS, Recipe, inputs, recipe, recipe_from_inputs

ROOT = Path(__file__).resolve().parents[3]


def keys(made: Recipe) -> list[str]:
    return [made.key(origin) for origin in ORIGINS]


def test_every_real_combination_has_a_recipe_of_its_own() -> None:
    found = {}
    for project, bases in (("cifar", ("cpu", "gpu")), ("digits", ("bare",)), (None, ("bare", "cpu", "gpu"))):
        for base in bases:
            for mode in ("prod", "dev"):
                made = recipe(ROOT, project, base=base, mode=mode)
                found.update({key: (project, base, mode) for key in keys(made)})
                assert len({pin.name for pin in made.all_pins}) == len(made.all_pins)
    assert len(found) == 24


def test_the_digits_image_has_no_torch_and_the_cifar_layer_none_of_its_base() -> None:
    assert "torch" not in {pin.name for pin in recipe(ROOT, "digits", base="bare").all_pins}
    cifar = recipe(ROOT, "cifar", base="cpu")
    assert "matplotlib" in {pin.name for pin in cifar.project_pins}
    assert not {pin.name for pin in cifar.project_pins} & {pin.name for pin in cifar.base_pins}


def test_the_root_is_pinned_by_digest() -> None:
    reference = recipe(ROOT, None, base="bare").root_reference
    assert (
        reference == "python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b"
    )


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda house, one, two: house.write("requirements/toy.in", "# a comment\none\n"), True),
        (lambda house, one, two: house.write("projects/toy/train.py", "pass\n"), True),
        (lambda house, one, two: house.project("toy", two), False),
        (lambda house, one, two: house.project("toy", one, two), False),
        (lambda house, one, two: house.write("docker/Dockerfile.prod", "ARG BASE\nFROM ${BASE}\nRUN true\n"), False),
        (lambda house, one, two: house.write("docker/install.sh", "true\n"), False),
        (lambda house, one, two: house.write("docker/Dockerfile.dev", "ARG BASE\nFROM ${BASE}\n"), True),
    ],
)
def test_what_changes_the_key(house: Any, make_wheel: Any, change: Callable[..., Any], same: bool) -> None:
    one, two = make_wheel("one", "1"), make_wheel("two", "2")
    house.project("toy", one)
    before = keys(recipe(house.root, "toy", base="bare"))
    change(house, one, two)
    assert (keys(recipe(house.root, "toy", base="bare")) == before) is same


def test_projects_with_equal_packages_share_an_image(house: Any, make_wheel: Any) -> None:
    one = make_wheel("one", "1")
    house.project("toy", one)
    house.project("other", one, house.below)
    assert keys(recipe(house.root, "toy", base="bare")) == keys(recipe(house.root, "other", base="bare"))


def test_a_project_without_requirements_is_its_base(house: Any) -> None:
    made = recipe(house.root, "nothing", base="bare")
    assert made.project is None
    assert made.project_pins == ()


def test_a_recipe_comes_back_from_a_runs_inputs_alone(house: Any, make_wheel: Any, tmp_path: Path) -> None:
    house.project("toy", make_wheel("one", "1"))
    house.write("requirements/dev.txt", (house.root / "requirements/toy.txt").read_text())
    made = recipe(house.root, "toy", base="bare", mode="dev")
    folder = tmp_path / "inputs"
    for name, source in inputs(made, tmp_path / "cache").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).hardlink_to(source)
    house.write("requirements/toy.txt", "")  # an edit of the house must not reach what is kept
    assert recipe_from_inputs(folder) == made
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        *("Dockerfile.base", "Dockerfile.dev", "Dockerfile.prod", "bare.in", "bare.txt", "debian.sh", "dev.txt"),
        *("environment.json", "install.in", "install.sh", "install.txt", "toy.in", "toy.txt"),
    ]


def test_what_is_missing_or_unknown_is_named(house: Any, tmp_path: Path) -> None:
    with pytest.raises(
        RunnerError, match=r"^base 'tpu', mode 'prod': expected one of bare, cpu, gpu and one of prod, dev$"
    ):
        recipe(house.root, None, base="tpu")
    with pytest.raises(RunnerError, match=r"requirements/cpu\.txt: not there, .*; run `make lock`$"):
        recipe(house.root, None, base="cpu")
    with pytest.raises(RunnerError, match=r"^project 'host': requirements/host\.in is a base's or a tool's"):
        recipe(house.root, "host", base="bare")
    with pytest.raises(RunnerError, match=r"environment\.json: not there$"):
        recipe_from_inputs(tmp_path)
    house.write("docker/Dockerfile.base", "FROM python:3.11\n")
    with pytest.raises(RunnerError, match=r"^docker/Dockerfile\.base: no line `ARG ROOT="):
        keys(recipe(house.root, None, base="bare"))
