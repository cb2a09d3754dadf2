"""What the command line shows: tables, the page of one run, what a launch says before and after. Text only, no colours
needed to read it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from runner.contract.records import Manifest, Outcome, State, to_json
from runner.host.engines.engine import Engine
from runner.host.launch.plan import LaunchPlan


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, two spaces apart."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )
    return "\n".join(lines)


def run_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`make ls`: one line a run, the newest last, next to the prompt."""
    if not rows:
        return "no runs yet; start one with `make train PROJECT=cifar CONFIG=toy`"
    return table(
        ("STATE", "SCORE", "STEP", "TIME", "RUN", "PROJECT", "NAME"),
        [
            (
                row["state"],
                number(row["score"]),
                "-" if row["step"] is None else str(row["step"]),
                duration(row["duration_s"]),
                row["run"],
                row["project"],
                row["name"],
            )
            for row in rows
        ],
    )


def number(value: float | None) -> str:
    """A score in at most six characters or so."""
    return "-" if value is None else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """1h02m03s, 02m03s or 3.4s."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def run_page(facts: Mapping[str, Any]) -> str:
    """`make show`: what ran, on what, in what, and how it ended."""
    lines = [
        f"{facts['name']}",
        f"  folder     {facts['folder']}",
        f"  state      {facts['state']}{_because(facts['outcome'])}",
    ]
    manifest = facts["manifest"]
    if not facts["intact"]:
        lines.append(
            "  WARNING    manifest.json is not the one that was launched: it was changed since; believe nothing below"
        )
    if manifest is not None:
        lines += _inputs(manifest)
    for pointer, found in facts["checkpoints"].items():
        lines.append(f"  {pointer:10} {found['file']}, step {found['step']}, score {number(found['score'])}")
    if len(facts["attempts"]) > 1:
        for attempt in facts["attempts"]:
            lines.append(
                f"  attempt {attempt['attempt']}  {attempt['state'] or 'not ended'} {attempt.get('reason') or ''}".rstrip()
            )
    for evaluation in facts["evaluations"]:
        lines.append(f"  evaluated  {evaluation['folder']} (score {number(evaluation['score'])})")
    if facts["last_lines"]:
        lines += ["  last lines", *(f"    | {line}" for line in facts["last_lines"])]
    return "\n".join(lines)


def _because(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None:
        return ""
    parts = [outcome["reason"]] if outcome["reason"] else []
    if outcome["duration_s"] is not None:
        parts.append(f"after {duration(outcome['duration_s'])}")
    return f" ({', '.join(parts)})"


def _inputs(manifest: Mapping[str, Any]) -> list[str]:
    source, image, machine = manifest["source"], manifest["image"], manifest["machine"]
    lines = [
        f"  run        {manifest['tag']}/{manifest['number']} of {manifest['project']}, {manifest['mode']}, created {manifest['created']}",
        f"  command    {shlex.join(manifest['command'])}",
        f"  config     {manifest['experiment']} {' '.join(manifest['overrides'])} (sha256 {manifest['config_sha256'][:12]})",
    ]
    if source is not None:
        dirty = (
            f", {source['dirty_count']} files differ from it" if source["dirty_count"] else ", nothing differs from it"
        )
        commit = (
            f"commit {source['commit'][:12]} on {source['branch'] or 'no branch'}{dirty}"
            if source["commit"]
            else "no commit"
        )
        lines.append(f"  source     tree {source['tree'][:12]}, {commit}")
    lines.append(f"  image      {image['id'][:19]} {image['tag'] or ''}, base {image['base']} ({image['base_origin']})")
    for data in manifest["data"]:
        lines.append(
            f"  data       {data['name']} ({data['variant']}), {data['files']} files, {size(data['bytes'])}, "
            f"fingerprint {data['fingerprint'][:12]}"
        )
    for model in manifest["models"]:
        lines.append(f"  starts at  models/{model['name']}/{model['version']} (sha256 {model['sha256'][:12]})")
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    lines.append(
        f"  machine    {machine['name']}, {machine['cpu']} ({machine['cpu_capability']}, {machine['cores']} cores), {gpus}; "
        f"{manifest['resources']['threads']} threads"
    )
    lines.append(f"  engine     {manifest['engine']['kind']} {manifest['engine']['version']}")
    if not manifest["reproducible"]:
        lines.append(f"  note       not reproducible: {'; '.join(manifest['not_reproducible_because'])}")
    return lines


def started(plan: LaunchPlan) -> str:
    """The line before a launch's own output."""
    manifest = plan.manifest
    where = (
        f"{manifest.engine.kind}, image {manifest.image.id[:19]}"
        if manifest.engine.kind == "docker"
        else "local engine"
    )
    return f"{manifest.kind} {plan.place.folder.name} ({where}, source {manifest.source.tree[:12] if manifest.source else '-'})"


def detached(plan: LaunchPlan) -> str:
    """What can be done with a run that was just detached."""
    name = plan.place.folder.name
    return f"running; make logs RUN={name} FOLLOW=1 · make show RUN={name} · make stop RUN={name}"


def ended(plan: LaunchPlan, outcome: Outcome) -> str:
    """What came of a launch: where it is, how good, what to type next."""
    folder, manifest = plan.place.folder, plan.manifest
    lines = [
        "",
        f"{outcome.state}: {outcome.reason}" + (f", {duration(outcome.duration_s)}" if outcome.duration_s else ""),
    ]
    lines.append(f"  {_what(manifest)}  {folder}")
    if outcome.score is not None:
        lines.append(
            f"  score  {outcome.score:.4f}"
            + (f" (step {outcome.step})" if manifest.kind == "evaluate" and outcome.step else "")
        )
    lines += [f"  next   {command}" for command in _next(manifest, outcome)]
    return "\n".join(lines)


def _what(manifest: Manifest) -> str:
    return {"train": "run  ", "evaluate": "wrote"}.get(manifest.kind, "wrote")


def _next(manifest: Manifest, outcome: Outcome) -> list[str]:
    run = manifest.run
    if manifest.kind != "train":
        return []
    if outcome.state is State.COMPLETED:
        return [f"make eval RUN={run}", f"make show RUN={run}"]
    again = [f"make resume RUN={run}"] if outcome.step is not None else []
    return [*again, f"make show RUN={run}", f"make logs RUN={run}"]


def outcome_facts(plan: LaunchPlan, outcome: Outcome) -> dict[str, Any]:
    """The end of a launch for --json."""
    return {"folder": str(plan.place.folder), "outcome": to_json(outcome)}


def plan_facts(plan: LaunchPlan) -> dict[str, Any]:
    """A plan for --json. The manifest is what would be written."""
    return {"folder": str(plan.place.folder), "manifest": to_json(plan.manifest), "spec": to_json(plan.spec)} | {
        "files": sorted(str(path) for path in plan.files)
    }


def plan_page(plan: LaunchPlan, engine: Engine) -> str:
    """DRY_RUN=1: what would be launched, and the equal command for a shell."""
    manifest = plan.manifest
    lines = [
        f"would {manifest.kind} in {plan.place.folder}",
        *_inputs(to_json(manifest)),
        "  mounts",
        *(f"    {m.target} {'ro' if m.read_only else 'rw'}  {m.source}" for m in plan.spec.mounts),
        "",
        engine.command_line(plan.spec),
    ]
    return "\n".join(lines)
