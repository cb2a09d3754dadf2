"""A run leaves its machine as one file and works on another; a release starts another project; no secret travels."""

import base64
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from runner.host.images import recipes
from tests.e2e.conftest import CHECKPOINT, TestHouse, make_house, read_or_empty, wait_for

SECRETS = {
    "environment": "tok-environment-5b1f0c",
    "git": "tok-git-remote-77aa31",
    "pip": "tok-pip-config-c09d2e",
    "docker": "tok-docker-config-1e44b8",
}

AUTH = base64.b64encode(f"me:{SECRETS['docker']}".encode()).decode()
FORMS = {**SECRETS, "docker's own form": AUTH}


def offline(house: TestHouse) -> dict[str, str]:
    """An index and a proxy that nobody answers at: whatever is fetched, fails."""
    nowhere = "http://127.0.0.1:9"
    return {**house.environment, "PIP_INDEX_URL": nowhere, "https_proxy": nowhere, "HTTPS_PROXY": nowhere}


def test_a_run_is_evaluated_and_reproduced_on_another_machine(house: TestHouse, tmp_path: Path) -> None:
    """Another clone, other roots; on the local engine an empty cache too, and no network: the wheels come along."""
    house.code(CHECKPOINT)
    house.train("--set", "learning_rate=0.25")
    run, file = house.only_run(), tmp_path / "run.tar"
    done = house.run("export", "--run", "latest", "--file", str(file))
    assert str(file) in done.stdout
    shutil.rmtree(house.root)
    cache = tmp_path / "cache" if house.engine == "local" else Path(house.environment["CACHE_ROOT"])
    other = make_house(tmp_path / "elsewhere", cache, house.engine)
    shutil.rmtree(other.root / "projects" / "probe")
    other.environment = offline(other)
    done = other.run("import", "--file", str(file))
    imported = Path(done.stdout.strip())
    assert imported.name == run.name and imported.parent.parent.parent == other.checkpoints
    other.run("eval", "--run", run.name, "--split", "test")
    (seen,) = other.outputs.glob(f"probe/no-dataset/{run.name}/test_best_*/seen.json")
    assert json.loads(seen.read_text())["lr"] == 0.25
    assert "is the same" in other.run("import", "--file", str(file)).stderr
    assert "HOLDS: the same run" in other.run("reproduce", "--run", run.name).stdout


def test_a_running_run_is_not_exported(house: TestHouse, tmp_path: Path) -> None:
    house.code("import time\nprint('ready', flush=True)\ntime.sleep(120)\n")
    house.train("--detach")
    wait_for(lambda: "ready" in read_or_empty(house.only_run() / "logs.txt"), "the run is ready")
    refused = house.run("export", "--run", "latest", "--file", str(tmp_path / "x.tar"), check=2)
    assert "is RUNNING" in refused.stderr and not list(tmp_path.glob("*.tar"))
    house.run("stop", "--run", "latest", "--now")


def test_a_file_that_is_no_export_is_one_line(plain_house: TestHouse, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(os.urandom(5000))
    for name in ("x.tar", "absent.tar", "."):
        refused = plain_house.run("import", "--file", str(tmp_path / name), check=2)
        assert refused.stderr.startswith("error: ") and len(refused.stderr.splitlines()) == 1


def plant(house: TestHouse, folder: Path) -> None:
    """Credentials wherever people keep them."""
    folder.mkdir()
    house.git("remote", "add", "origin", f"https://me:{SECRETS['git']}@example.org/house.git")
    house.git("config", "branch.main.remote", "origin")
    house.git("config", "branch.main.merge", "refs/heads/main")
    (folder / "pip.conf").write_text(f"[global]\nextra-index-url = https://me:{SECRETS['pip']}@example.org/simple\n")
    docker = folder / "docker"
    docker.mkdir()
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    config = json.loads(own.read_text()) if own.is_file() else {}
    config["auths"] = {"registry.example.org": {"auth": AUTH}}
    (docker / "config.json").write_text(json.dumps(config))
    house.environment |= {
        "AWS_SECRET_ACCESS_KEY": SECRETS["environment"],
        "HF_TOKEN": SECRETS["environment"],
        "PIP_CONFIG_FILE": str(folder / "pip.conf"),
        "DOCKER_CONFIG": str(docker),
    }


def holders(places: list[Path]) -> list[str]:
    """The files below `places` that hold a planted credential."""
    found = []
    for place in places:
        for path in [place, *place.rglob("*")] if place.exists() else []:
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found += [f"{path}: {name}" for name, secret in FORMS.items() if secret.encode() in content]
    return found


def test_no_secret_is_in_any_file_that_we_write(house: TestHouse, tmp_path: Path) -> None:
    """The image is built anew under the planted credentials, its layer of wheels included: no cached step comes after the
    mark. Then every byte that `docker save` gives of it is looked at."""
    dockerfile = house.root / "docker/Dockerfile.base"
    step = "RUN --mount=type=bind,target=/build python3.11 -m venv"
    assert step in dockerfile.read_text()
    dockerfile.write_text(dockerfile.read_text().replace(step, f"ENV MARK={uuid.uuid4().hex}\n{step}"))
    plant(house, tmp_path / "planted")
    house.code(CHECKPOINT + "import os\nprint('\\n'.join(f'{k}={v}' for k, v in os.environ.items()))\n")
    house.train()
    run, file = house.only_run(), tmp_path / "run.tar"
    image = house.manifest(run)["image"]["id"]
    try:
        house.run("eval")
        house.run("export", "--run", "latest", "--file", str(file))
        house.run("release", "--run", "latest", "--name", "probe")
        models = Path(house.environment["MODELS_ROOT"])
        places = [run, house.outputs, models, file, Path(house.environment["CACHE_ROOT"]) / "builds"]
        assert holders(places) == []
        remote = house.manifest(run)["source"]["remote"]
        assert remote is None or remote == "https://example.org/house.git"
        if house.engine == "docker":
            for command in (["history", "--no-trunc"], ["inspect"]):
                text = subprocess.run(["docker", *command, image], check=True, capture_output=True, text=True).stdout
                assert not any(secret in text for secret in FORMS.values())
            saved = tmp_path / "saved.tar"
            subprocess.run(["docker", "save", "--output", str(saved), image], check=True)
            assert b"MARK=" in saved.read_bytes() and holders([saved]) == []
    finally:
        if house.engine == "docker":
            recipe = recipes.recipe(house.root, None, base="bare")
            tags = [recipe.base_tag(origin) for origin in recipes.ORIGINS]
            subprocess.run(["docker", "rmi", "-f", image, *tags], check=False, capture_output=True)


def test_a_release_is_pinned_and_goes_where_the_next_run_goes(house: TestHouse, tmp_path: Path) -> None:
    house.code(CHECKPOINT)
    house.train()
    done = house.run("release", "--run", "latest", "--name", "birds")
    assert Path(done.stdout.strip()) == Path(house.environment["MODELS_ROOT"]) / "birds" / "v1"
    house.code(
        "import os\nfrom pathlib import Path\nfrom runner.inside import report\n"
        "name = report.config().init_from.removeprefix('models/')\n"
        "print('starts from', (Path(os.environ['MODELS_DIR']) / name / 'weights.pt').read_text())\n"
    )
    done = house.train("--set", "init_from=models/birds", "--tag", "second")
    assert "starts from weights" in done.stdout
    run = house.runs()[-1]
    (model,) = house.manifest(run)["models"]
    assert (model["name"], model["version"]) == ("birds", "v1")
    config = json.loads((run / "attempts/1/config.json").read_text())
    assert config["init_from"] == "models/birds/v1"
    refused = house.train("--set", "init_from=models/bird", check=2)
    assert "did you mean 'birds'" in refused.stderr and len(house.runs()) == 2
    assert "models/birds/v1" in house.run("show", "--run", run.name).stdout
    house.run("reproduce", "--run", run.name)
    assert house.manifest(house.runs()[-1])["models"] == [model]
    file = tmp_path / "second.tar"
    house.run("export", "--run", run.name, "--file", str(file), "--with", "none")
    other = make_house(tmp_path / "elsewhere", Path(house.environment["CACHE_ROOT"]), house.engine)
    shutil.rmtree(house.root)
    other.run("import", "--file", str(file))
    other.run("reproduce", "--run", run.name)
    (again,) = [path for path in other.runs() if path.name != run.name]
    assert other.manifest(again)["models"] == [model] and "starts from weights" in (again / "logs.txt").read_text()
    shutil.rmtree(Path(other.environment["MODELS_ROOT"]) / "birds")
    refused = other.run("reproduce", "--run", run.name, check=2)
    assert f"began with models/birds/v1 with sha256 {model['sha256']} is not there" in refused.stderr


@pytest.mark.docker
def test_a_notebook_and_a_shell_see_the_runs(docker_house: TestHouse) -> None:
    (docker_house.base / "checkpoints").mkdir()
    for verb in ("shell", "notebook"):
        line = docker_house.run(verb, "--project", "probe", "--engine", "docker", "--dry-run").stdout
        assert "CHECKPOINTS_ROOT=/run/checkpoints" in line
        assert f"source={docker_house.checkpoints},target=/run/checkpoints,bind-propagation=rprivate,readonly" in line
    assert "127.0.0.1:8888:8888/tcp" in line and "jupyterlab" in line
    refused = docker_house.run("notebook", "--project", "probe", "--port", "80", check=2)
    assert "PORT='80'" in refused.stderr
