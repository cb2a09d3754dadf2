"""The released models that a run began with: found again by their sha256, and carried along in its export."""

from collections.abc import Sequence
from pathlib import Path

from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, sync_folder
from runner.contract.models import Model, find_model
from runner.contract.records import ModelRecord
from runner.host.house import House, shared_folder
from runner.host.launch.gather import Say
from runner.host.verbs.run_archive import MODELS, Archive, beside


def shown(models: Sequence[ModelRecord]) -> str:
    """Released models as a message names them."""
    return ", ".join(f"{model.name}/{model.version} ({model.sha256[:12]})" for model in models) or "no released model"


def kept_model(root: Path, record: ModelRecord) -> Model:
    """The very version that a run began with, below the models root.

    Raises:
        RunnerError: it is not there, or its weights are others; the text says how to get it back.
    """
    reference = f"models/{record.name}/{record.version}"
    try:
        model = find_model(root, reference)
        found = file_sha256(model.file)
    except RunnerError:
        found = None
    if found != record.sha256:
        what = "is not there" if found is None else f"has other weights there (sha256 {found})"
        raise RunnerError(
            f"{reference} with sha256 {record.sha256} {what} ({root}); it comes with `make import FILE=` of the run's "
            f"export, or with `make model NAME={record.name} VERSION={record.version} SOURCE=… CHECKSUM={record.sha256}`"
        )
    return model


def model_files(root: Path, records: Sequence[ModelRecord]) -> dict[str, Path]:
    """The files of a run's models by their names in an archive.

    Raises:
        RunnerError: one of the models is not there any more.
    """
    folders = [kept_model(root, record).folder for record in records]
    files = (
        path for folder in folders for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()
    )
    return {f"{MODELS}{path.relative_to(root).as_posix()}": path for path in files}


def check_models(house: House, archive: Archive, records: Sequence[ModelRecord]) -> None:
    """Refuse an archive with models that its run did not begin with, or whose names mean other weights here.

    Raises:
        RunnerError: which.
    """
    named = tuple(f"{MODELS}{record.name}/{record.version}/" for record in records)
    strange = [name for name in archive.page.items if name.startswith(MODELS) and not name.startswith(named)]
    if strange:
        raise RunnerError(f"{archive.path}: {strange[0]} is of no model that its run began with")
    for record in _carried(archive, records):
        if (house.models / record.name / record.version).exists():
            kept_model(house.models, record)


def import_models(house: House, archive: Archive, records: Sequence[ModelRecord], say: Say) -> None:
    """Bring the models of an archive into the models root, each complete or not at all; those that are here stay.

    Raises:
        RunnerError: the weights are not those that the run's manifest names.
    """
    for record in _carried(archive, records):
        folder = house.models / record.name / record.version
        if folder.exists():
            continue
        shared_folder(house.models, folder.parent)
        with beside(house.models, "models") as temporary:
            for name in archive.page.items:
                if name.startswith(f"{MODELS}{record.name}/{record.version}/"):
                    archive.extract(name, temporary / name.removeprefix(MODELS))
            kept_model(temporary, record).folder.rename(folder)
            sync_folder(folder.parent)
        say(f"models/{record.name}/{record.version} is in {house.models}")


def _carried(archive: Archive, records: Sequence[ModelRecord]) -> list[ModelRecord]:
    """The models that the archive has files of."""
    return [r for r in records if any(name.startswith(f"{MODELS}{r.name}/{r.version}/") for name in archive.page.items)]
