"""`release` and `model`: a checkpoint of a run, or weights from outside, become models/<name>/<version>/ with a card."""

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.contract import catalogue, checkpoints
from runner.contract import config as configs
from runner.contract.checksum import Checksum
from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, pretty_json, read_json, sync_folder, write_atomic
from runner.contract.layout import LaunchPaths, RunPaths
from runner.contract.models import CARD_JSON, CARD_MD, SCHEMA_VERSION, WEIGHTS, Model, find_model, number_of, versions
from runner.contract.names import check_name
from runner.contract.records import Manifest, ModelRecord, load_record
from runner.contract.yaml12 import dump_yaml
from runner.host.data.download import download
from runner.host.house import House, shared_folder
from runner.host.launch.gather import Resolved
from runner.host.source.exports import disk_errors
from runner.host.verbs import runs
from runner.host.verbs.model_card import card_text


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """What `make release` was asked for."""

    run: str
    name: str
    project: str | None = None
    checkpoint: str = checkpoints.BEST
    version: str | None = None


def release(house: House, request: ReleaseRequest) -> Model:
    """Copy a checkpoint, its bytes checked, to models/<name>/<version>/ with a card: complete or not there.

    Raises:
        RunnerError: no such run or checkpoint, a damaged one, or a version that is taken.
    """
    run = runs.find(house, request.run, request.project)
    path = checkpoints.find_checkpoint(run.checkpoints, request.checkpoint)
    if path is None:
        raise RunnerError(f"{run.folder.name}: has no checkpoint in {run.checkpoints}; there is nothing to release")
    sha256 = checkpoints.verify(path)
    manifest, facts = load_record(Manifest, run.attempt(1).manifest), checkpoints.facts(path)
    card = {
        "kind": "release",
        "score": facts.get("score"),
        "score_name": facts.get("score_name"),
        "step": facts.get("step"),
        "evaluations": _evaluations(house, run, path.name),
        "run": run.folder.name,
        "project": manifest.project,
        "checkpoint": path.name,
        "state_sha256": facts.get("state_sha256"),
        "dataset": manifest.dataset,
        "data": [{"name": d.name, "variant": d.variant, "fingerprint": d.fingerprint} for d in manifest.data],
        "source": None if manifest.source is None else {"tree": manifest.source.tree, "commit": manifest.source.commit},
        "image": manifest.image.id,
        "config_sha256": manifest.config_sha256,
        "config": read_json(runs.last_launch(run).config_json),
        "reproducible": manifest.reproducible,
    }
    return _publish(house, request.name, request.version, path, sha256, card)


def bring(house: House, name: str, source: str, *, checksum: str | None = None, version: str | None = None) -> Model:
    """Take weights from outside (a file, or an https address with its CHECKSUM=) in the same form.

    Raises:
        RunnerError: no such file, other bytes than the checksum names, or a version that is taken.
    """
    check_name("NAME", name)
    wanted = None if checksum is None else parse_checksum(checksum)
    if source.startswith(("http://", "https://")):
        if wanted is None:
            raise RunnerError(
                f"SOURCE={source}: a file from the network needs CHECKSUM=sha256:<64 digits>, as its authors publish it"
            )
        file_name = source.partition("?")[0].rstrip("/").rpartition("/")[2] or WEIGHTS
        path = download(source, house.cache / "models" / wanted.digest[:32] / file_name, checksum=wanted)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise RunnerError(f"SOURCE={source!r}: no file there; give a file of weights or an https address")
        if wanted is not None and wanted.of(path) != wanted.digest:
            raise RunnerError(
                f"SOURCE={source!r}: its {wanted.algorithm} is {wanted.of(path)}, expected {wanted.digest}"
            )
    origin = without_credentials(source) if "://" in source else path.name
    return _publish(house, name, version, path, file_sha256(path), {"kind": "outside", "origin": origin})


def parse_checksum(text: str) -> Checksum:
    """`sha256:<digits>`, or the digits alone.

    Raises:
        RunnerError: neither.
    """
    algorithm, _, digest = text.rpartition(":")
    algorithm, digest = algorithm or {32: "md5", 40: "sha1", 64: "sha256"}.get(len(digest), ""), digest.lower()
    lengths = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
    if lengths.get(algorithm) != len(digest) or set(digest) - set("0123456789abcdef"):
        raise RunnerError(f"CHECKSUM={text[:80]!r}: expected sha256:<64 hexadecimal digits>")
    return Checksum(algorithm, digest)


def without_credentials(url: str) -> str:
    """An address as a card may name it: no user, no password, no query."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0].partition('#')[0]}"


def pin_models(house: House, resolved: Resolved) -> tuple[Resolved, tuple[ModelRecord, ...]]:
    """The config with the version that `init_from` means today, and what a manifest says of it.

    Raises:
        RunnerError: there is no such model, or its weights are not those of its card.
    """
    asked = resolved.values.get("init_from")
    if asked is None:
        return resolved, ()
    model = find_model(house.models, str(asked))
    found = file_sha256(model.file)
    if found != model.sha256:
        raise RunnerError(
            f"{model.file}: damaged (sha256 {found[:12]}…, its card says {model.sha256[:12]}…); release it again under another version"
        )
    values = {**resolved.values, "init_from": model.reference}
    pinned = replace(resolved, values=values, sha256=configs.identity(values), yaml=dump_yaml(values))
    return pinned, (ModelRecord(name=model.name, version=model.version, sha256=model.sha256),)


def _evaluations(house: House, run: RunPaths, checkpoint: str) -> list[dict[str, Any]]:
    """The scores that evaluations of this very checkpoint gave, oldest first."""
    found = []
    for entry in catalogue.list_outputs(house.outputs, run.folder.name):
        manifest = load_record(Manifest, LaunchPaths(entry.launch).manifest)
        if manifest.checkpoint == checkpoint and entry.score is not None:
            data = [record.variant for record in manifest.data]
            found.append({"split": manifest.split, "score": entry.score, "data": data, "created": entry.created})
    return found


def _publish(
    house: House, name: str, version: str | None, source: Path, sha256: str, facts: Mapping[str, Any]
) -> Model:
    """Make the version's folder under a hidden name, then rename it: of two at once each gets a version of its own."""
    check_name("NAME", name)
    if version is not None:
        check_name("VERSION", version)
    parent = shared_folder(house.models, house.models / name)
    temporary = parent / f".{secrets.token_hex(6)}.tmp"
    try:
        with disk_errors("release"):
            temporary.mkdir()
            file = WEIGHTS + (source.suffix or ".bin")
            shutil.copyfile(source, temporary / file)
            if file_sha256(temporary / file) != sha256:
                raise RunnerError(f"{source}: changed while it was copied; try again")
            sync_folder(temporary)
            while True:
                chosen = version or f"v{1 + max(map(number_of, versions(parent)), default=0)}"
                card = {
                    "schema_version": SCHEMA_VERSION,
                    "name": name,
                    "version": chosen,
                    "file": file,
                    "size": source.stat().st_size,
                    "sha256": sha256,
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    **facts,
                }
                write_atomic(temporary / CARD_JSON, pretty_json(card))
                write_atomic(temporary / CARD_MD, card_text(card).encode())
                if _renamed(temporary, parent / chosen):
                    break
                if version is not None:
                    raise RunnerError(
                        f"VERSION={version!r}: {name} has that version already; leave it out for the next v<n>"
                    )
            sync_folder(parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Model(name=name, version=chosen, folder=parent / chosen, card=card)


def _renamed(temporary: Path, target: Path) -> bool:
    """Rename a folder; False where the name is taken."""
    try:
        temporary.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    return True
