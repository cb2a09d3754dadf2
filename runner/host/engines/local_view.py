"""What a container would see, as a folder of symbolic links: the local engine's stand-in for mounts."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from runner.contract import layout
from runner.contract.errors import EngineError
from runner.host.engines.engine import ContainerSpec

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


PLACES = (layout.WORKSPACE, layout.RUN_DIR, layout.DATASETS_DIR, layout.MODELS_DIR, layout.OUTPUT_DIR, layout.HOME)


class View:
    """The view of one spec below a folder. Paths inside become paths below that folder, everything else stays."""

    def __init__(self, spec: ContainerSpec, folder: Path | PurePosixPath) -> None:
        self._spec = spec
        self._folder = folder
        self._tops = {*PLACES, *(mount.target for mount in spec.mounts)}
        self._above = {parent for mount in spec.mounts for parent in mount.target.parents}

    def path(self, text: str) -> str:
        """`text`, moved into the view if it is the path of something that only exists inside."""
        path = PurePosixPath(text)
        if not text.startswith("/") or path.parent == path:
            return text
        inside = path in self._above or path in self._tops or any(top in path.parents for top in self._tops)
        return f"{self._folder}{text}" if inside else text

    def argv(self) -> tuple[str, ...]:
        """The command in the view."""
        return tuple(self.path(word) for word in self._spec.argv)

    def environment(self) -> dict[str, str]:
        """The spec's variables in the view, and a PATH: nothing else of ours gets in."""
        values = {
            name: os.pathsep.join(self.path(part) for part in value.split(os.pathsep))
            for name, value in self._spec.environment.items()
        }
        values["PATH"] = f"{self._spec.image}/bin:{SEARCH_PATH}"
        values["CUDA_VISIBLE_DEVICES"] = ",".join(self._spec.limits.gpus)
        return values

    def links(self) -> Iterator[tuple[Path, str]]:
        """What to link: (source, path below the view). A mount that its parent shows already needs no link.

        Raises:
            EngineError: a mount over a part of another, which links cannot show.
        """
        for mount in self._spec.mounts:
            above = [other for other in self._spec.mounts if other.target in mount.target.parents]
            parent = max(above, key=lambda other: len(other.target.parts), default=None)
            if parent is None:
                yield mount.source, str(mount.target)[1:]
                continue
            shown = parent.source / mount.target.relative_to(parent.target)
            if shown != mount.source and not (shown.exists() and shown.samefile(mount.source)):
                raise EngineError(
                    f"{mount.target}: lies inside {parent.target}, where the local engine cannot show {mount.source}; "
                    "mount it elsewhere, or use ENGINE=docker"
                )

    def check(self) -> None:
        """Refuse what links cannot show.

        Raises:
            EngineError: see `links`.
        """
        for _ in self.links():
            pass

    def make(self) -> None:
        """Make the folder."""
        folder = Path(self._folder)
        for source, name in self.links():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(source)
        (folder / str(layout.HOME)[1:]).mkdir(parents=True, exist_ok=True)

    def command_line(self) -> str:
        """A shell line that makes a view of its own and runs the command in it."""
        links = list(self.links())
        above = {str(PurePosixPath(name).parent) for _, name in links}
        parents = sorted(above - {"."} | {str(layout.HOME)[1:]})
        parts = [
            "view=$(mktemp -d)",
            "mkdir -p " + " ".join(f'"$view"/{shlex.quote(name)}' for name in parents),
            *(f'ln -s {shlex.quote(str(source))} "$view"/{shlex.quote(name)}' for source, name in links),
            f"umask {self._spec.user.umask:03o}",
            f"cd {self._quoted(self.path(str(self._spec.workdir)))}",
            " ".join(
                [
                    "env -i",
                    *(self._quoted(f"{name}={value}") for name, value in self.environment().items()),
                    *(self._quoted(word) for word in self.argv()),
                ]
            ),
        ]
        return "(" + " && ".join(parts) + ")"

    def _quoted(self, text: str) -> str:
        """Quoted for a shell, but for the view's own folder, which is a variable there."""
        pieces = [shlex.quote(piece) if piece else "" for piece in text.split(str(self._folder))]
        return '"$view"'.join(pieces) or "''"
