"""What GPUS= and `gpu:` mean on this machine, as a pure function of its GPUs."""

from collections.abc import Sequence

from runner.contract.errors import RunnerError
from runner.contract.records import GpuRecord

FORMS = "auto, none, all, a count (2), indices (0,1) or UUIDs"


def choose_gpus(asked: object, gpus: Sequence[GpuRecord]) -> tuple[GpuRecord, ...]:
    """The GPUs that `asked` names: auto, none, all, a count, indices or UUIDs separated by commas.

    A single number is a count, as in `docker run --gpus 2`; one index alone is written `0,`. `auto` takes all there are,
    which may be none.

    Raises:
        RunnerError: asked for and not there, or not one of the forms.
    """
    if isinstance(asked, list | tuple):  # resources.gpus: [0, 1]
        asked = ",".join(map(str, asked)) + "," if asked else "none"
    text = str(asked).strip().lower() if not isinstance(asked, bool) else ("all" if asked else "none")
    if text in ("none", "false", "0", "null"):
        return ()
    if text == "auto":
        return tuple(gpus)
    if not gpus:
        raise RunnerError(
            f"GPUS={asked}: this machine has no GPU that its driver reports (nvidia-smi lists none); use GPUS=none or GPUS=auto"
        )
    if text in ("all", "true"):
        return tuple(gpus)
    if text.isdecimal():
        if int(text) > len(gpus):
            raise RunnerError(f"GPUS={asked}: this machine has {_count(gpus)}; ask for at most {len(gpus)} or GPUS=all")
        return tuple(gpus[: int(text)])
    names = [name.strip() for name in str(asked).split(",") if name.strip()]
    if not names:
        raise RunnerError(f"GPUS={asked!r}: names no GPU; the forms are {FORMS}")
    return tuple(dict.fromkeys(_named(name, asked, gpus) for name in names))


def _named(name: str, asked: object, gpus: Sequence[GpuRecord]) -> GpuRecord:
    for gpu in gpus:
        if name == str(gpu.index) or name.lower() == gpu.uuid.lower():
            return gpu
    have = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in gpus)
    raise RunnerError(f"GPUS={asked}: no GPU {name!r} here (have: {have}); the forms are {FORMS}")


def _count(gpus: Sequence[GpuRecord]) -> str:
    return f"{len(gpus)} GPU" + ("s" if len(gpus) != 1 else "")
