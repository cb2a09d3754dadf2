"""What decides whether and how a machine is given an engine."""

import subprocess
from pathlib import Path

import pytest

from runner.contract.errors import RunnerError
from runner.host.engines import setup
from runner.host.engines.setup import ENGINE_PACKAGES, KEYRING, missing_packages, wait_for_engine, why_not

DEBIAN = {"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux 12"}
UBUNTU = {"ID": "ubuntu", "ID_LIKE": "debian", "PRETTY_NAME": "Ubuntu 24.04"}
MINT = {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}
FEDORA = {"ID": "fedora", "PRETTY_NAME": "Fedora 42"}


def test_only_root_of_a_debian_or_ubuntu_may() -> None:
    assert [why_not(system, 0) for system in (DEBIAN, UBUNTU, MINT)] == [None, None, None]
    assert "needs root: run `sudo make engine` once" in str(why_not(DEBIAN, 1000))
    assert str(why_not(FEDORA, 0)).startswith("found Fedora 42, expected Debian or Ubuntu")
    assert str(why_not({}, 0)).startswith("found an unknown system")


ROOT = ["mmdebstrap", "debian-archive-keyring"]


@pytest.mark.parametrize(
    ("present", "known", "wanted"),
    [
        ([], ["docker.io"], ["docker.io", *ROOT]),  # Debian 12
        ([], ENGINE_PACKAGES, [*ENGINE_PACKAGES, *ROOT]),  # Debian 13
        ([KEYRING], ["docker.io", "docker-buildx"], ["docker.io", "docker-buildx", "mmdebstrap"]),  # Ubuntu
        (["docker"], ENGINE_PACKAGES, ["docker.io", "docker-buildx", *ROOT]),  # a client from elsewhere stays
        (["dockerd", "docker"], ENGINE_PACKAGES, ROOT),  # an engine from elsewhere stays as it is
        (["dockerd", "docker", "mmdebstrap", KEYRING], ENGINE_PACKAGES, []),
    ],
)
def test_what_is_installed(present: list[str], known: list[str], wanted: list[str]) -> None:
    assert missing_packages(present, known) == wanted


def test_the_root_file_system_asks_for_the_keyring_by_name(tmp_path: Path) -> None:
    """As somebody who may not install it, where only it is missing."""
    hidden = f'mount -t tmpfs tmpfs {Path(KEYRING).parent} && exec "$@"'
    machine = ["unshare", "--map-root-user", "--mount", "sh", "-c", hidden, "sh", "unshare", "--map-user=1234"]
    if subprocess.run([*machine, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not make a namespace here")
    script = Path(__file__).resolve().parents[2] / "docker/base/debian.sh"
    argv = [*machine, "sh", str(script), str(tmp_path / "root.tar"), str(tmp_path / "packages.txt")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "apt-get install mmdebstrap debian-archive-keyring" in done.stderr


def test_a_daemon_that_dies_is_told_at_once_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    log = tmp_path / "dockerd.log"
    with log.open("wb") as handle:
        daemon = subprocess.Popen(["sh", "-c", "echo starting; echo no iptables"], stdout=handle)
    with pytest.raises(RunnerError, match=r"^dockerd ended at once: no iptables$"):
        wait_for_engine(tmp_path, lambda: setup.last_line(log), lambda: daemon.poll() is None)
    monkeypatch.setattr(setup, "START_S", 0.1)
    with pytest.raises(RunnerError, match=r"^dockerd did not answer within 0.1 s: no iptables$"):
        wait_for_engine(tmp_path, lambda: setup.last_line(log), lambda: True)
