"""pip-tools with small changes; a script for the environment of requirements/lock.txt: `python -I pip_compile.py ARGS`.

A file's sha256 is taken from the index where it says one: pip-tools asks PyPI's JSON API alone and downloads everything
else, which for CUDA's wheels is gigabytes. And of a local build such as 2.13.0+cpu only the files for Linux on x86-64
and this Python are hashed, so that the lock is the same whether they come from a folder or from PyTorch's index.
And packages are chosen for the oldest Python 3.11 that they are installed in, whichever 3.11 resolves.
"""

import logging
import sys
from typing import Any

from pip._internal.models.target_python import TargetPython
from pip._internal.resolution.resolvelib.candidates import RequiresPythonCandidate
from piptools.repositories.pypi import PyPIRepository
from piptools.scripts.compile import cli

OLDEST_PYTHON = (3, 11, 2)
"""Debian bookworm's."""
_hash_of_file = PyPIRepository._get_file_hash
_candidates = PyPIRepository._get_matching_candidates


def _hash_from_index(self: Any, link: Any) -> str:
    """The sha256 in the index's own words, else of the downloaded file."""
    return f"sha256:{link.hash}" if link.hash_name == "sha256" else str(_hash_of_file(self, link))


def _candidates_here(self: Any, ireq: Any) -> Any:
    """All files of a pinned version; of a local build those for this platform."""
    found = _candidates(self, ireq)
    if "+" not in str(ireq.specifier):
        return found
    python = f"-cp{sys.version_info.major}{sys.version_info.minor}-"
    return {one for one in found if python in one.link.filename and one.link.filename.endswith("_x86_64.whl")}


def _for_oldest_python(kind: type) -> None:
    """Let pip take OLDEST_PYTHON where it would take the version that runs it."""
    original = kind.__init__  # type: ignore[misc]

    def initialise(self: Any, *arguments: Any, py_version_info: Any = None, **others: Any) -> None:
        given = [one for one in arguments if one is not None]  # the version that runs it is passed as None
        original(self, *given, py_version_info=py_version_info or OLDEST_PYTHON, **others)

    setattr(kind, "__init__", initialise)  # noqa: B010


if __name__ == "__main__":
    conflicts = logging.getLogger("pip._internal.resolution.resolvelib.factory")
    conflicts.setLevel(logging.INFO)  # says who conflicts; pip-tools shows warnings alone
    conflicts.addHandler(logging.StreamHandler())
    setattr(PyPIRepository, "_get_file_hash", _hash_from_index)  # noqa: B010
    setattr(PyPIRepository, "_get_matching_candidates", _candidates_here)  # noqa: B010
    _for_oldest_python(TargetPython)
    _for_oldest_python(RequiresPythonCandidate)
    sys.argv[0] = "pip-compile"
    cli()
