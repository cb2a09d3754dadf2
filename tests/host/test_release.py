"""Releases are complete or absent, carry what they are, and the next training can begin with them."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.contract import config as configs
from runner.contract.errors import RunnerError
from runner.contract.models import find_model, versions
from runner.contract.records import Manifest, from_json
from runner.host.house import House, find_house
from runner.host.launch.gather import Resolved
from runner.host.verbs.release import ReleaseRequest, bring, parse_checksum, pin_models, release, without_credentials
from tests.host.made_runs import make_run


@pytest.fixture
def house(tmp_path: Path) -> House:
    (tmp_path / "runner.yml").write_text("")
    return find_house(tmp_path, {})


@pytest.fixture
def run(house: House) -> Path:
    """A run with two checkpoints; the older one is the best."""
    folder = make_run(house.checkpoints / "probe" / "tiny", "session_box_2026_01_31_12_00_00_wide").folder
    for step, score in ((100, 0.9), (200, 0.8)):
        content = f"weights of {step}".encode()
        (folder / f"checkpoints/step_{step:08d}.pt").write_bytes(content)
        facts = {"step": step, "score": score, "score_name": "accuracy", "sha256": hashlib.sha256(content).hexdigest()}
        (folder / f"checkpoints/step_{step:08d}.json").write_text(json.dumps(facts))
    (folder / "checkpoints/best").write_text("step_00000100.pt\n")
    (folder / "checkpoints/latest").write_text("step_00000200.pt\n")
    return folder


def test_a_release_has_the_checkpoints_bytes_and_says_where_they_come_from(house: House, run: Path) -> None:
    made = release(house, ReleaseRequest(run=run.name, name="birds"))
    assert made.reference == "models/birds/v1" and made.file.read_bytes() == b"weights of 100"
    card = json.loads((made.folder / "card.json").read_text())
    assert (card["run"], card["checkpoint"], card["score"], card["step"]) == (run.name, "step_00000100.pt", 0.9, 100)
    assert card["sha256"] == hashlib.sha256(b"weights of 100").hexdigest()
    manifest = json.loads((run / "attempts/1/manifest.json").read_text())
    assert card["source"]["tree"] == manifest["source"]["tree"]
    assert [data["fingerprint"] for data in card["data"]] == [data["fingerprint"] for data in manifest["data"]]
    assert card["config"] == json.loads((run / "attempts/1/config.json").read_text())
    text = (made.folder / "card.md").read_text()
    assert "0.9000 after step 100" in text and "init_from: models/birds/v1" in text and run.name in text


def test_versions_count_up_and_are_never_overwritten(house: House, run: Path) -> None:
    release(house, ReleaseRequest(run=run.name, name="birds"))
    assert release(house, ReleaseRequest(run=run.name, name="birds", checkpoint="latest")).version == "v2"
    release(house, ReleaseRequest(run=run.name, name="birds", version="paper"))
    with pytest.raises(RunnerError, match=r"VERSION='paper': birds has that version already"):
        release(house, ReleaseRequest(run=run.name, name="birds", version="paper"))
    assert versions(house.models / "birds") == ["paper", "v1", "v2"]
    assert find_model(house.models, "models/birds").file.read_bytes() == b"weights of 200"
    assert find_model(house.models, "models/birds/paper").version == "paper"
    with pytest.raises(RunnerError, match=r"birds has no version v9 \(have: paper, v1, v2\)"):
        find_model(house.models, "models/birds/v9")
    with pytest.raises(RunnerError, match=r"init_from='bird': .*did you mean 'birds'"):
        find_model(house.models, "models/bird")


def test_two_releases_at_once_get_two_versions(house: House, run: Path) -> None:
    threads = [
        threading.Thread(target=release, args=(house, ReleaseRequest(run=run.name, name="birds"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions(house.models / "birds") == [f"v{n}" for n in range(1, 9)]
    assert not list((house.models / "birds").glob(".*"))


def test_a_damaged_checkpoint_or_a_bad_name_leaves_nothing(house: House, run: Path) -> None:
    (run / "checkpoints/step_00000100.pt").write_bytes(b"weights of 101")
    with pytest.raises(RunnerError, match=r"step_00000100.pt: damaged"):
        release(house, ReleaseRequest(run=run.name, name="birds"))
    with pytest.raises(RunnerError, match=r"NAME='../birds': not a name"):
        release(house, ReleaseRequest(run=run.name, name="../birds", checkpoint="latest"))
    assert not list(house.models.rglob("card.json")) and not (house.models.parent / "birds").exists()


class Handler(BaseHTTPRequestHandler):
    """Serves one file."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"outside")

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_weights_from_outside_take_the_same_form(
    house: House, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    digest = hashlib.sha256(b"outside").hexdigest()
    made = bring(house, "resnet", f"http://{server}/resnet.safetensors?key=secret", checksum=f"sha256:{digest}")
    assert (made.file.name, made.file.read_bytes(), made.sha256) == ("weights.safetensors", b"outside", digest)
    assert made.card["origin"] == f"http://{server}/resnet.safetensors"
    assert "secret" not in (made.folder / "card.md").read_text()
    with pytest.raises(RunnerError, match="needs CHECKSUM="):
        bring(house, "resnet", f"http://{server}/resnet.safetensors")
    with pytest.raises(RunnerError, match="sha256 of the 7 bytes"):
        bring(house, "resnet", f"http://{server}/x.pt", checksum="sha256:" + "0" * 64)
    (tmp_path / "w.pt").write_bytes(b"mine")
    assert bring(house, "resnet", str(tmp_path / "w.pt")).version == "v2"
    with pytest.raises(RunnerError, match="expected 0000"):
        bring(house, "resnet", str(tmp_path / "w.pt"), checksum="0" * 64)


def test_checksums_and_addresses() -> None:
    assert parse_checksum("MD5".lower() + ":" + "A" * 32).digest == "a" * 32
    assert parse_checksum("b" * 64).algorithm == "sha256"
    with pytest.raises(RunnerError, match="expected sha256:<64 hexadecimal digits>"):
        parse_checksum("sha256:abc")
    assert without_credentials("https://me:pw@host/a/b.pt?token=1#x") == "https://host/a/b.pt"


def test_init_from_is_pinned_to_a_version_and_recorded(house: House, run: Path) -> None:
    release(house, ReleaseRequest(run=run.name, name="birds"))
    release(house, ReleaseRequest(run=run.name, name="birds", checkpoint="latest"))
    values = {"seed": 0, "init_from": "models/birds", "tag": "", "resources": {}}
    resolved = Resolved(values=values, sha256="", yaml="", gpus=())
    pinned, records = pin_models(house, resolved)
    assert pinned.values["init_from"] == "models/birds/v2" and "models/birds/v2" in pinned.yaml
    assert pinned.sha256 == configs.identity(pinned.values)
    assert [(r.name, r.version, r.sha256) for r in records] == [
        ("birds", "v2", hashlib.sha256(b"weights of 200").hexdigest())
    ]
    assert pin_models(house, replace(resolved, values={**values, "init_from": None}))[1] == ()
    (house.models / "birds/v2/weights.pt").write_bytes(b"changed")
    with pytest.raises(RunnerError, match=r"weights.pt: damaged"):
        pin_models(house, resolved)


def test_an_old_manifest_reads_as_without_models(run: Path) -> None:
    value = json.loads((run / "attempts/1/manifest.json").read_text())
    value.pop("models", None)
    assert from_json(Manifest, value, "old").models == ()
