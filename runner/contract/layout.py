"""Every file name of a record and every path inside a container. They are spelled here and nowhere else."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Inside a container. Code reads the variables of the same names, never these paths: the local engine points the
# variables at a folder of symlinks with the same view.
WORKSPACE = PurePosixPath("/workspace")
RUN_DIR = PurePosixPath("/run/session")
DATASETS_DIR = PurePosixPath("/datasets")
MODELS_DIR = PurePosixPath("/models")
OUTPUT_DIR = PurePosixPath("/outputs")
MOUNTS_DIR = PurePosixPath("/mnt")
"""Further folders, each by the name that resources.mounts gives it."""
SUPERVISOR = PurePosixPath("/run/supervisor.py")
HOME = PurePosixPath("/tmp/home")

DATASET_PARTS = ("raw", "lmdb", "lists")
TOY = "toy"

LOGS = "logs.txt"
METRICS_JSONL = "metrics.jsonl"
CONFIG_YML = "config.yml"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
DEBUG = "debug"
INPUTS = "inputs"
ATTEMPTS = "attempts"
LAUNCH = "launch"
MANIFEST = "manifest.json"
CONFIG_JSON = "config.json"
EXIT = "exit.json"
OUTCOME = "outcome.json"
LOCK = ".preparing"
METRICS_JSON = "metrics.json"
VERDICT = "verdict"


@dataclass(frozen=True)
class LaunchPaths:
    """The record of one launch: what was asked, what was there, and how it ended."""

    folder: Path

    @property
    def manifest(self) -> Path:
        """Inputs and environment; written by the host before the start, never edited."""
        return self.folder / MANIFEST

    @property
    def config_yml(self) -> Path:
        """The resolved config, for people."""
        return self.folder / CONFIG_YML

    @property
    def config_json(self) -> Path:
        """The resolved config, for code of any framework."""
        return self.folder / CONFIG_JSON

    @property
    def exit(self) -> Path:
        """How the command ended, as the supervisor saw it. Empty until then."""
        return self.folder / EXIT

    @property
    def outcome(self) -> Path:
        """What happened; published once by the host."""
        return self.folder / OUTCOME

    @property
    def lock(self) -> Path:
        """Held with flock while the host prepares the launch."""
        return self.folder / LOCK


@dataclass(frozen=True)
class RunPaths:
    """The folder of one run: `session_{machine}_{time}_{tag}`."""

    folder: Path

    @property
    def inputs(self) -> Path:
        """Source, lock, Dockerfiles, project.yml, build.log: the run can be rebuilt from these alone."""
        return self.folder / INPUTS

    @property
    def config_yml(self) -> Path:
        """The resolved config of the first attempt."""
        return self.folder / CONFIG_YML

    @property
    def logs(self) -> Path:
        """All terminal output, both streams, progress bars collapsed."""
        return self.folder / LOGS

    @property
    def metrics(self) -> Path:
        """One flat JSON object a line: step, epoch, split, the scalars, time."""
        return self.folder / METRICS_JSONL

    @property
    def tensorboard(self) -> Path:
        """Event files, in train/ and val/."""
        return self.folder / TENSORBOARD

    @property
    def checkpoints(self) -> Path:
        """step_00001000.pt with a sidecar .json each; pointers latest and best."""
        return self.folder / CHECKPOINTS

    @property
    def debug(self) -> Path:
        """Intermediate results."""
        return self.folder / DEBUG

    @property
    def attempts(self) -> Path:
        """One launch folder a launch, numbered from 1."""
        return self.folder / ATTEMPTS

    def attempt(self, number: int) -> LaunchPaths:
        """The record of attempt `number`, counted from 1."""
        return LaunchPaths(self.attempts / str(number))


@dataclass(frozen=True)
class OutputPaths:
    """The folder of one evaluation or preparation: what it produced, and its record in `launch/`.

    The record has a folder of its own because the products' folder is writable inside: a read-only mount over `launch/`
    keeps project code from replacing, renaming or forging any file of it.
    """

    folder: Path

    @property
    def launch(self) -> LaunchPaths:
        """The record of the one launch that filled this folder."""
        return LaunchPaths(self.folder / LAUNCH)

    @property
    def logs(self) -> Path:
        """All terminal output."""
        return self.folder / LOGS

    @property
    def metrics(self) -> Path:
        """The scores of an evaluation, one flat JSON object."""
        return self.folder / METRICS_JSON
