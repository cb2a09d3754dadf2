"""What changed between two runs: every planted difference alone is found, named, and judged."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.contract.fingerprint import fingerprint
from runner.contract.layout import RunPaths
from runner.contract.listing import write_listing
from runner.contract.records import Manifest, MountRecord
from runner.host.source import exports
from runner.host.source.snapshot import snapshot
from runner.host.verdict.changes import Change, Effect, what_changed
from runner.host.verdict.run_facts import facts_of
from tests.host.made_runs import CONFIG, GPU, machine, make_run


def changes(a: RunPaths, b: RunPaths, cache: Path) -> tuple[Change, ...]:
    return what_changed(facts_of(a), facts_of(b), cache)


def other(field: str, **values: Any) -> Callable[[Manifest], Manifest]:
    return lambda found: dataclasses.replace(found, **{field: dataclasses.replace(getattr(found, field), **values)})


def fields(**values: Any) -> Callable[[Manifest], Manifest]:
    return lambda found: dataclasses.replace(found, **values)


def resources(**values: Any) -> Callable[[Manifest], Manifest]:
    return lambda found: dataclasses.replace(found, resources={**found.resources, **values})


def variables(**values: str) -> Callable[[Manifest], Manifest]:
    return lambda found: dataclasses.replace(found, environment={**found.environment, **values})


PLANTED = [
    (machine(cpu_capability="AVX2"), "machine vector width", Effect.NUMERICS, False),
    (machine(cpu="Xeon"), "machine CPU", Effect.NUMERICS, False),
    (machine(cores=8), "machine cores", Effect.NUMERICS, False),
    (machine(kernel="6.2"), "machine kernel", Effect.NONE, False),
    (machine(name="other", memory_bytes=1), "machine memory,machine name", Effect.NONE, False),
    (machine(gpus=(GPU,)), "machine GPUs,machine driver", Effect.NONE, False),
    (resources(threads=4), "limits threads", Effect.NUMERICS, True),
    (resources(processes=2), "limits processes", Effect.DECIDES, True),
    (resources(memory_gib=4, shm_bytes=2), "limits memory_gib,limits shm_bytes", Effect.NONE, False),
    (fields(network=True), "limits network", Effect.MAY, True),
    (fields(command=("python", "x.py")), "limits command", Effect.DECIDES, True),
    (variables(TOKEN="sha256:0123"), "environment TOKEN", Effect.MAY, True),
    (variables(PYTHONHASHSEED="1"), "environment PYTHONHASHSEED", Effect.MAY, True),
    (variables(RUNNER_ATTEMPT="2", OMP_NUM_THREADS="4"), "", Effect.NONE, False),
    (fields(mounts=(MountRecord(target="/mnt/extra", read_only=True),)), "mounts /mnt/extra", Effect.MAY, True),
    (fields(mounts=(MountRecord(target="/models", read_only=True),)), "mounts /models", Effect.NONE, False),
    (other("image", base="debian:trixie"), "image base", Effect.MAY, True),
    (other("image", python="3.11.2"), "image python release", Effect.NONE, False),
    (other("image", dockerfile_sha256="9" * 64), "image Dockerfiles", Effect.MAY, True),
    (other("image", lock_sha256="9" * 64), "packages (lock)", Effect.DECIDES, True),
    (other("image", id="sha256:" + "9" * 64), "image id", Effect.NONE, False),
    (other("engine", kind="local"), "engine kind", Effect.NUMERICS, False),
    (other("engine", version="28"), "engine version", Effect.NONE, False),
    (fields(mode="dev"), "runner mode", Effect.MAY, False),
]


@pytest.mark.parametrize(("change", "names", "effect", "is_input"), PLANTED, ids=[p[1] or "attempt" for p in PLANTED])
def test_a_planted_difference_in_the_record_is_found_alone(
    tmp_path: Path, change: Callable[[Manifest], Manifest], names: str, effect: Effect, is_input: bool
) -> None:
    a, b = make_run(tmp_path, "session_a"), make_run(tmp_path, "session_b", change=change)
    found = changes(a, b, tmp_path / "cache")
    assert ",".join(sorted(f"{c.group} {c.name}" for c in found)) == ",".join(sorted(names.split(",")) if names else [])
    assert {c.effect for c in found} == ({effect} if names else set())
    assert {c.is_input for c in found} == ({is_input} if names else set())


@pytest.mark.parametrize(
    ("config", "name", "effect"),
    [
        ({"seed": 1}, "seed", Effect.DECIDES),
        ({"learning_rate": 0.2}, "learning_rate", Effect.DECIDES),
        ({"model": {"depth": 3}}, "model.depth", Effect.DECIDES),
        ({"deterministic": True}, "deterministic", Effect.DECIDES),
        ({"seed": False}, "seed", Effect.DECIDES),
        ({"n_workers": 4}, "n_workers", Effect.NONE),
    ],
)
def test_a_config_key_alone(tmp_path: Path, config: dict[str, Any], name: str, effect: Effect) -> None:
    a = make_run(tmp_path, "session_a")
    b = make_run(tmp_path, "session_b", config={**CONFIG, **config, "tag": "other"})
    (found,) = changes(a, b, tmp_path / "cache")
    assert (found.group, found.name, found.effect) == ("config", name, effect)


def test_n_workers_of_a_project_without_the_trainer_may_mean_anything(tmp_path: Path) -> None:
    a = make_run(tmp_path, "session_a", trainer=False)
    b = make_run(tmp_path, "session_b", trainer=False, config={**CONFIG, "n_workers": 4})
    assert changes(a, b, tmp_path / "cache")[0].effect is Effect.DECIDES


def with_source(tmp_path: Path, name: str, house: Path) -> RunPaths:
    """A run of the house as it stands, its archive in inputs/."""
    source = snapshot(house, tmp_path / "cache", project="probe")
    run = make_run(tmp_path / "runs", name, change=other("source", tree=source.tree, trees=source.trees))
    exports.place_archive(source.tree, tmp_path / "cache", run.inputs / "source.tar")
    return run


def edit(path: str, text: str | None = "changed\n", mode: int | None = None) -> Callable[[Path], None]:
    def do(house: Path) -> None:
        target = house / path
        if mode is not None:
            target.chmod(mode)
        elif text is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    return do


SOURCE = [
    (edit("projects/probe/train.py", "print('trainee')\n"), "modified projects/probe/train.py", Effect.DECIDES),
    (edit("projects/probe/new.py"), "added projects/probe/new.py", Effect.DECIDES),
    (edit("projects/probe/train.py", None), "removed projects/probe/train.py", Effect.DECIDES),
    (edit("projects/probe/train.py", mode=0o755), "mode projects/probe/train.py", Effect.MAY),
    (edit("runner/training/x.py"), "modified runner/training/x.py", Effect.DECIDES),
    (edit("runner/host/y.py"), "modified runner/host/y.py", Effect.NONE),
    (edit("shared.py"), "added shared.py", Effect.MAY),
    (edit("common/vocab.json"), "added common/vocab.json", Effect.MAY),
    (edit("projects/probe/prompt.md"), "added projects/probe/prompt.md", Effect.DECIDES),
    (edit("projects/other/words.txt"), "added projects/other/words.txt", Effect.MAY),
    (edit("LICENSE"), "added LICENSE", Effect.NONE),
    (edit("CHANGELOG.md"), "added CHANGELOG.md", Effect.NONE),
    (edit("docs/guide.html"), "added docs/guide.html", Effect.NONE),
    (edit("requirements/other.in"), "added requirements/other.in", Effect.NONE),
    (edit("README.md"), "modified README.md", Effect.NONE),
    (edit("projects/probe/README.md"), "added projects/probe/README.md", Effect.NONE),
    (edit("projects/probe/configs/new.yml"), "added projects/probe/configs/new.yml", Effect.NONE),
    (edit("tests/test_it.py"), "added tests/test_it.py", Effect.NONE),
]


@pytest.mark.parametrize(("plant", "file", "effect"), SOURCE, ids=[item[1] for item in SOURCE])
def test_one_source_file_alone_is_named(
    tmp_path: Path, plant: Callable[[Path], None], file: str, effect: Effect
) -> None:
    house = tmp_path / "house"
    for path in ("README.md", "runner/training/x.py", "runner/host/y.py"):
        edit(path, "x\n")(house)
    edit("projects/probe/train.py", "print('trained')\n")(house)
    first = with_source(tmp_path, "session_a", house)
    plant(house)
    second = with_source(tmp_path, "session_b", house)
    (found,) = changes(first, second, tmp_path / "cache")
    assert (found.group, found.files, found.effect) == ("source", (file,), effect)
    assert found.is_input is (effect is not Effect.NONE)
    if file == SOURCE[0][1]:
        assert "-print('trained')\n+print('trainee')\n" in found.diff


def test_sources_are_compared_although_the_cache_is_gone(tmp_path: Path) -> None:
    house = tmp_path / "house"
    edit("projects/probe/train.py", "1\n")(house)
    first = with_source(tmp_path, "session_a", house)
    edit("projects/probe/train.py", "2\n")(house)
    second = with_source(tmp_path, "session_b", house)
    (found,) = changes(first, second, tmp_path / "another cache")
    assert found.files == ("modified projects/probe/train.py",)
    (second.inputs / "source.tar").unlink()
    (found,) = changes(first, second, tmp_path / "third cache")
    assert found.name == "project" and "no source archive there" in found.files[0]


def with_data(tmp_path: Path, name: str, raw: Path) -> RunPaths:
    """A run that saw `raw` as it stands, its list of files in inputs/."""
    found = fingerprint(raw, cache=tmp_path / "fingerprints")

    def change(record: Manifest) -> Manifest:
        (data,) = record.data
        return dataclasses.replace(record, data=(dataclasses.replace(data, parts={"raw": found.sha256}),))

    run = make_run(tmp_path / "runs", name, change=change)
    (run.inputs / "data").mkdir()
    write_listing(run.inputs / "data" / "tiny.raw.tsv.gz", found.listing)
    return run


def byte_with_old_mtime(raw: Path) -> None:
    path = raw / "a.bin"
    before = path.stat()
    path.write_bytes(b"aXa")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DATA = [
    (lambda raw: (raw / "a.bin").write_bytes(b"aba"), "changed a.bin", Effect.DECIDES),
    (byte_with_old_mtime, "changed a.bin", Effect.DECIDES),
    (lambda raw: (raw / "c.bin").write_bytes(b"c"), "added c.bin", Effect.DECIDES),
    (lambda raw: (raw / "b.bin").unlink(), "removed b.bin", Effect.DECIDES),
    (lambda raw: (raw / "b.bin").chmod(0o600), "mode b.bin", Effect.NONE),
]


@pytest.mark.parametrize(("plant", "file", "effect"), DATA, ids=["byte", "byte, old mtime", "added", "removed", "mode"])
def test_one_data_file_alone_is_named(
    tmp_path: Path, plant: Callable[[Path], object], file: str, effect: Effect
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.bin").write_bytes(b"aaa")
    (raw / "b.bin").write_bytes(b"bbb")
    first = with_data(tmp_path, "session_a", raw)
    plant(raw)
    (found,) = changes(first, with_data(tmp_path, "session_b", raw), tmp_path / "cache")
    assert (found.group, found.files, found.effect) == ("data", (file,), effect)


def test_the_most_likely_cause_comes_first(tmp_path: Path) -> None:
    def change(record: Manifest) -> Manifest:
        return machine(kernel="6.2", cpu_capability="AVX2")(variables(TOKEN="x")(record))

    a = make_run(tmp_path, "session_a")
    b = make_run(tmp_path, "session_b", change=change, config={**CONFIG, "seed": 3, "n_workers": 1})
    found = changes(a, b, tmp_path / "cache")
    assert [c.name for c in found] == ["seed", "TOKEN", "vector width", "n_workers", "kernel"]


LOCK = "alpha==1.0 --hash=sha256:" + "a" * 64 + "\nbeta==2.0 --hash=sha256:" + "b" * 64 + "\n"


def test_a_package_version_alone_is_named(tmp_path: Path) -> None:
    from runner.host.images import recipes

    house = tmp_path / "house"
    for name in ("docker/Dockerfile.base", "docker/Dockerfile.prod", "docker/base/debian.sh", "docker/install.sh"):
        edit(name, "text\n")(house)
    edit("requirements/install.txt", LOCK)(house)
    runs = []
    for name, lock in (("session_a", LOCK), ("session_b", LOCK.replace("beta==2.0", "beta==2.1"))):
        edit("requirements/bare.txt", lock)(house)
        recipe = recipes.recipe(house, None, base="bare")
        run = make_run(tmp_path / "runs", name, change=other("image", lock_sha256=recipe.lock_sha256))
        for kept, path in recipes.inputs(recipe, tmp_path / "cache").items():
            (run.inputs / kept).parent.mkdir(parents=True, exist_ok=True)
            (run.inputs / kept).write_bytes(path.read_bytes())
        runs.append(run)
    (found,) = changes(runs[0], runs[1], tmp_path / "cache")
    assert (found.group, found.name, found.first, found.second) == ("packages", "beta", "2.0", "2.1")
