"""Which tests can run here. A skipped test says why; where containers are required, a missing engine is a failure."""

import os

import pytest

SLOW = ("test_exact_resume.py", "test_command.py", "test_cifar.py")
"""Whole launches and many processes: `make test` runs them, `make check` leaves them out."""
NEED_DOCKER = os.environ.get("RUNNER_TESTS_NEED_DOCKER") == "1"


def docker_engine_problem() -> str | None:
    """Why no container can be started here; None where one can."""
    from runner.contract.errors import EngineError
    from runner.host.engines.choose import choose_engine

    try:
        from pathlib import Path
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as cache:
            choose_engine("docker", Path(cache), lambda text: None).identity()
    except EngineError as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs an engine or a GPU that is not here, saying so; under RUNNER_TESTS_NEED_DOCKER fail instead."""
    for item in items:
        if "e2e" in item.path.parts or item.path.name in SLOW:
            item.add_marker(pytest.mark.slow)
    wanting_docker = [item for item in items if item.get_closest_marker("docker")]
    problem = docker_engine_problem() if wanting_docker else None
    if problem is not None:
        if NEED_DOCKER:
            raise pytest.UsageError(f"RUNNER_TESTS_NEED_DOCKER=1, and no container can be started: {problem}")
        for item in wanting_docker:
            item.add_marker(pytest.mark.skip(reason=f"no container engine: {problem}"))
    wanting_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if wanting_gpu:
        from runner.host.machine import find_gpus

        if not find_gpus():
            for item in wanting_gpu:
                item.add_marker(pytest.mark.skip(reason="no GPU: nvidia-smi lists none"))
