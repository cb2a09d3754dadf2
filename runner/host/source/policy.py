"""What a snapshot refuses to take without being told so: files that look like secrets, and large untracked files."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase, translate

from runner.contract.errors import RunnerError
from runner.host.source.git import printable
from runner.host.source.tree import Look

MAX_UNTRACKED_BYTES = 50_000_000
_LISTED = 10

_SECRET = (
    ".env", ".env.*", ".envrc", ".netrc", "_netrc", ".pypirc", ".pgpass", ".git-credentials", ".htpasswd",
    ".vault-token", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.ppk", "*.p12", "*.pfx", "*.jks",
    "*.keystore", "*.kdbx", "credentials.json", "client_secret*.json", "service_account*.json", "service-account*.json",
    "application_default_credentials.json", "kaggle.json", "secrets.yml", "secrets.yaml", "secrets.json",
    "secrets.toml",
)  # fmt: skip
_SECRET_PATHS = (
    ".aws/credentials",
    ".docker/config.json",
    ".kube/config",
    ".ssh/*",
    ".huggingface/token",
    ".config/gcloud/*",
)
_HARMLESS = (".env.example", ".env.template", ".env.sample", ".env.dist", ".env.defaults", "*.pub")


def _regex(globs: Iterable[str]) -> "re.Pattern[bytes]":
    return re.compile("|".join(translate(glob) for glob in globs).encode(), re.IGNORECASE | re.DOTALL)


_NAMES, _PATHS, _FINE = (
    _regex(_SECRET),
    _regex(pattern for p in _SECRET_PATHS for pattern in (p, f"*/{p}")),
    _regex(_HARMLESS),
)
_PARENT = re.compile("|".join(sorted({re.escape(p.split("/")[0]) + "/" for p in _SECRET_PATHS})).encode())


def looks_secret(path: bytes) -> bool:
    """Whether a file's name, or its place, is one that credentials are known to be kept under."""
    name = path[path.rfind(b"/") + 1 :]
    if _NAMES.match(name):
        return not _FINE.match(name)
    return bool(_PARENT.search(path) and _PATHS.match(path)) and not _FINE.match(name)


def allowed(path: bytes, allow: Sequence[str]) -> bool:
    """Whether one of the `allow` patterns names the path or the file name."""
    full = path.decode("utf-8", "surrogateescape")
    return any(fnmatchcase(full, pattern) or fnmatchcase(full.rpartition("/")[2], pattern) for pattern in allow)


def rules_key(allow: Sequence[str]) -> str:
    """Changes whenever the answer of `check` for the same files could."""
    return repr((_SECRET, _SECRET_PATHS, _HARMLESS, MAX_UNTRACKED_BYTES, sorted(allow)))


def check(
    looks: Mapping[bytes, Look], names: Iterable[bytes], untracked: Iterable[bytes], allow: Sequence[str]
) -> None:
    """Refuse secrets, tracked or not, among `names`, and `untracked` files that are too large, all in one error.

    Raises:
        RunnerError: names them and says how to leave them out or let them in.
    """
    secret = sorted(path for path in names if looks_secret(path) and not allowed(path, allow))
    large = sorted(
        (path, looks[path][2])
        for path in untracked
        if path in looks and looks[path][2] > MAX_UNTRACKED_BYTES and not allowed(path, allow)
    )
    if not secret and not large:
        return
    found = []
    if secret:
        shown = _listed([printable(path) for path in secret])
        found.append(f"what looks like a secret would be kept with every run: {shown}")
    if large:
        shown = _listed([f"{printable(path)} ({size / 1e6:.0f} MB)" for path, size in large])
        found.append(f"untracked files over {MAX_UNTRACKED_BYTES // 1_000_000} MB: {shown}")
    advised = [printable(path) for path in (*secret, *(path for path, _ in large))][:_LISTED]
    raise RunnerError(
        f"source snapshot refused: {'; '.join(found)}: leave out by .gitignore (tracked ones: .runnerignore), or let "
        f"them in by name or pattern in runner.yml: `allow_secrets: {json.dumps(advised, ensure_ascii=False)}`"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
