"""What changed between two runs, in one list: the most likely cause first, what cannot matter last.

Source and data are compared file by file, from what each run keeps in its inputs/; everything else from its manifest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from runner.contract.config import differences
from runner.contract.errors import RunnerError
from runner.contract.jsonio import sha256_of
from runner.contract.trainer_keys import FREE, ON_RESUME
from runner.host.data.seen import listing_name
from runner.host.source.code import ARCHIVE
from runner.host.source.diff import Change as FileChange
from runner.host.source.diff import diff
from runner.host.source.exports import import_archive
from runner.host.verdict.run_facts import RunFacts

NAMES = 3
"""So many files are named in the name of a change."""


class Effect(StrEnum):
    """What a change does to results, as far as one can know without running."""

    DECIDES = "decides results"
    MAY = "may change results"
    NUMERICS = "may change the last digits"
    """Expected non-determinism: the same computation, rounded or ordered otherwise."""
    NONE = "no effect expected"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is not the same in both runs."""

    group: str
    name: str
    first: Any
    second: Any
    effect: Effect
    files: tuple[str, ...] = ()
    """Files that differ, `added`, `removed`, `modified` or `mode` in front."""
    diff: str = ""
    """Unified diff of source files."""

    @property
    def is_input(self) -> bool:
        """Whether the two runs had not the same inputs for it. Machine and engine are surroundings, not inputs."""
        return self.group not in ("machine", "engine", "runner") and self.effect is not Effect.NONE


GROUPS = (
    "record",
    "source",
    "config",
    "data",
    "packages",
    "image",
    "limits",
    "environment",
    "mounts",
    "engine",
    "machine",
    "runner",
)
"""In the order of likelihood, where the effect is the same."""
EFFECTS = {
    "config": Effect.DECIDES,
    "packages": Effect.DECIDES,
    "image": Effect.MAY,
    "image.python": Effect.DECIDES,
    "image.python release": Effect.NONE,
    "image.platform": Effect.DECIDES,
    "limits": Effect.NONE,
    "limits.command": Effect.DECIDES,
    "limits.network": Effect.MAY,
    "limits.processes": Effect.DECIDES,
    "limits.threads": Effect.NUMERICS,
    "environment": Effect.MAY,
    "mounts": Effect.MAY,
    "mounts./models": Effect.NONE,
    "engine": Effect.NONE,
    "engine.kind": Effect.NUMERICS,
    "machine": Effect.NONE,
    "machine.vector width": Effect.NUMERICS,
    "machine.CPU": Effect.NUMERICS,
    "machine.cores": Effect.NUMERICS,
    "runner": Effect.NONE,
    "runner.mode": Effect.MAY,
}
"""By group, and by group.name where one differs from its group."""
READ_BY_PEOPLE = (".md", ".rst", ".txt")
"""Endings of texts, at the root of the repository; further down code may read them."""
NOT_LAUNCHED = ("docs", "tests", "benchmarks", "jobs")
COMPARED_AS_BUILT = ("docker", "requirements")
"""What the image is made from stands in lines of its own."""


def what_changed(first: RunFacts, second: RunFacts, cache: Path) -> tuple[Change, ...]:
    """All that differs, most likely cause first. Only the cache is written to (source archives are unpacked there)."""
    found = [
        *_record_changes(first, second),
        *source_changes(first, second, cache),
        *data_changes(first, second),
        *_table_changes(first, second),
        *_system_changes(first, second),
    ]
    order = list(Effect)
    return tuple(sorted(found, key=lambda change: (order.index(change.effect), GROUPS.index(change.group))))


def _record_changes(*runs: RunFacts) -> Iterator[Change]:
    """The runs whose own record does not hold: what else is said of them may be wrong."""
    for run in runs:
        if run.problems:
            name = f"of {run.name}"
            yield Change(group="record", name=name, first=None, second=None, effect=Effect.MAY, files=run.problems)


def _table_changes(first: RunFacts, second: RunFacts) -> Iterator[Change]:
    """What the manifests, configs and locks say."""
    same_engine = first.last.engine.kind == second.last.engine.kind
    for group in first.groups:
        before, after = first.groups[group], second.groups[group]
        if group == "packages" and not (before and after):
            before, after = _lock(first), _lock(second)
        for name, old, new in differences(before, after):
            if group == "image" and not same_engine and name not in ("python", "platform"):
                continue  # another engine has another base by its nature
            if group == "limits" and name == "command" and None in (old, new):
                continue  # a resume has a command of its own
            effect = effect_of(group, name, first, second)
            yield Change(group=group, name=name, first=old, second=new, effect=effect)


def _system_changes(first: RunFacts, second: RunFacts) -> Iterator[Change]:
    """The packages of the system below Python's, where both were read: those of two images, never of two machines."""
    a, b = first.system, second.system
    if a and b and a != b:
        names = [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]
        yield Change(
            group="image",
            name="system packages",
            first=sha256_of(a)[:12],
            second=sha256_of(b)[:12],
            effect=Effect.MAY,
            files=tuple(f"{name} {a.get(name, 'none')} -> {b.get(name, 'none')}" for name in names),
        )


def _lock(facts: RunFacts) -> Mapping[str, Any]:
    """In place of the packages where a run's locks are gone."""
    return {"(lock)": facts.last.image.lock_sha256}


def effect_of(group: str, name: str, first: RunFacts, second: RunFacts) -> Effect:
    """What a difference in this entry does to results."""
    if group == "config":
        section = name.partition(".")[0]
        free = first.trainer and second.trainer and ON_RESUME.get(section) == FREE
        return Effect.NONE if free else Effect.DECIDES
    if group == "machine" and name in ("GPUs", "driver"):
        return Effect.NUMERICS if first.gpu or second.gpu else Effect.NONE
    if group == "limits" and name == "gpus":
        return Effect.NUMERICS if first.gpu and second.gpu else Effect.NONE
    if group == "image" and name == "id":
        return Effect.NONE  # packages, base and Dockerfiles stand in lines of their own
    return EFFECTS.get(f"{group}.{name}", EFFECTS[group])


# ------------------------------------------------------------------------------------------------------------- source


def source_changes(first: RunFacts, second: RunFacts, cache: Path) -> list[Change]:
    """The source files that differ, by the part of the tree that they lie in, with a diff."""
    a, b = first.first.source, second.first.source
    if a is None or b is None or a.tree == b.tree:
        return []
    try:
        for facts, source in ((first, a), (second, b)):
            import_archive(facts.run.inputs / ARCHIVE, cache, source.tree)
        found = diff(a.tree, b.tree, cache)
    except RunnerError as error:
        parts = [part for part in dict.fromkeys([*a.trees, *b.trees]) if a.trees.get(part) != b.trees.get(part)]
        effect = Effect.DECIDES if set(parts) & {"project", "runner"} else Effect.MAY
        why = f"the files cannot be compared: {error}"
        return [Change(group="source", name=", ".join(parts), first=a.tree, second=b.tree, effect=effect, files=(why,))]
    by_effect: dict[Effect, list[FileChange]] = {}
    own = f"projects/{first.project}/"
    for change in sorted(found.changes, key=lambda change: not change.path.startswith(own)):
        by_effect.setdefault(effect_of_file(change, first.project), []).append(change)
    texts = _sections(found.text)
    return [
        Change(
            group="source",
            name=_some([change.path for change in changes]),
            first=a.tree,
            second=b.tree,
            effect=effect,
            files=tuple(f"{change.kind} {change.path}" for change in changes),
            diff="".join(texts.get(change.path, "") for change in changes) if effect is not Effect.NONE else "",
        )
        for effect, changes in by_effect.items()
    ]


def effect_of_file(change: FileChange, project: str | None) -> Effect:
    """What a source file has to do with a run: its project's and the runner's code run, and any other file may be imported
    or read. What only people read, tests, the host's own half and experiments (which are compared as resolved) do not take
    part."""
    path = PurePosixPath(change.path)
    if _for_people(path) or path.parts[0] in (*NOT_LAUNCHED, *COMPARED_AS_BUILT):
        return Effect.NONE
    if path.parts[:2] == ("runner", "host"):
        return Effect.NONE
    mine = path.parts[:2] == ("projects", project or "")
    if mine and path.parts[2:3] == ("configs",) and path.suffix in (".yml", ".yaml"):
        return Effect.NONE
    if change.kind == "mode":
        return Effect.MAY
    if mine or path.parts[0] == "runner":
        return Effect.DECIDES
    return Effect.MAY


def _for_people(path: PurePosixPath) -> bool:
    if path.name.startswith((".git", "README", "LICENSE", "LICENCE")) or path.suffix == ".ipynb":
        return True
    return len(path.parts) == 1 and path.suffix in READ_BY_PEOPLE


def _sections(text: str) -> dict[str, str]:
    """A unified diff, cut up by file."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if line.startswith("diff a/") and " b/" in line:
            name = line[len("diff a/") :].rstrip("\n")
            name = name[: (len(name) - len(" b/")) // 2]  # "<name> b/<name>"
        found[name] = found.get(name, "") + line
    return found


# --------------------------------------------------------------------------------------------------------------- data


def data_changes(first: RunFacts, second: RunFacts) -> list[Change]:
    """Data sets that differ, part by part, with the files that were added, removed or changed."""
    before = {record.name: record for record in first.last.data}
    after = {record.name: record for record in second.last.data}
    found = []
    for name in dict.fromkeys([*before, *after]):
        a, b = before.get(name), after.get(name)
        if a is None or b is None:
            old, new = (None if record is None else record.fingerprint[:12] for record in (a, b))
            found.append(Change(group="data", name=name, first=old, second=new, effect=Effect.DECIDES))
            continue
        for part in dict.fromkeys([*a.parts, *b.parts]):
            found += _part_changes(first, second, name, part, a.parts.get(part), b.parts.get(part))
    return found


def _part_changes(
    first: RunFacts, second: RunFacts, name: str, part: str, before: str | None, after: str | None
) -> Iterator[Change]:
    lists = [facts.run.inputs / listing_name(name, part) for facts in (first, second)]
    kept = all(path.is_file() for path in lists)
    label, old, new = f"{name}/{part}", before and before[:12], after and after[:12]
    if not kept:
        if before != after:
            why = ("which files is not known: one of the runs keeps no list of them",)
            yield Change(group="data", name=label, first=old, second=new, effect=Effect.DECIDES, files=why)
        return
    if before == after and lists[0].read_bytes() == lists[1].read_bytes():
        return
    from runner.contract.listing import compare, read_listing

    found = compare(read_listing(lists[0]), read_listing(lists[1]))
    files = [f"{kind} {path}" for kind in ("added", "removed", "changed") for path in getattr(found, kind)]
    if before != after:
        yield Change(group="data", name=label, first=old, second=new, effect=Effect.DECIDES, files=tuple(files))
    if found.mode_changed:
        modes = tuple(f"mode {path}" for path in found.mode_changed)
        name = f"{label} permissions"
        yield Change(group="data", name=name, first=None, second=None, effect=Effect.NONE, files=modes)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more
