"""What a file's bytes must hash to, as its authors say it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checksum:
    """What a file's bytes must hash to."""

    algorithm: str
    """As hashlib names it: md5, sha256 …"""
    digest: str
    """Hexadecimal, lower case."""

    def of(self, path: Path) -> str:
        """The digest of a file, by this algorithm."""
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, self._new).hexdigest()

    def _new(self) -> "hashlib._Hash":
        return hashlib.new(self.algorithm, usedforsecurity=False)
