"""What the engines' tests run in: an image of the project's own making, and a virtual environment."""

import sys
from pathlib import Path

import pytest

from runner.host.engines.docker_engine import DockerEngine


@pytest.fixture(scope="session")
def house() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def test_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CACHE_ROOT of this test session's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def test_image(house: Path, test_cache: Path) -> str:
    """Id of the image of base `bare`, built by the project's own image code if the engine does not have it yet."""
    from runner.host.images import images, recipes

    engine = DockerEngine(test_cache)
    image = images.ensure(recipes.recipe(house, None, base="bare"), engine, house / ".cache", lambda line: None)
    return image.id


@pytest.fixture(scope="session")
def test_venv() -> str:
    """The virtual environment that these tests run in."""
    return sys.prefix
