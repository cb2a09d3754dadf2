"""What GPUS= means on machines with and without GPUs, and what a launch then asks for: all of it as values."""

from typing import Any

import pytest

from runner.contract.errors import RunnerError
from runner.contract.records import GpuRecord
from runner.host.gpus import choose_gpus
from runner.host.machine import parse_gpus

TABLE = """\
GPU-aaaa, 0, NVIDIA H200, 143771, 570.86
GPU-bbbb, 1, NVIDIA GB10, [N/A], 570.86
"""
GPUS = parse_gpus(TABLE)


def test_nvidia_smi_is_read() -> None:
    assert list(GPUS) == [
        GpuRecord(uuid="GPU-aaaa", index=0, name="NVIDIA H200", memory_mib=143771, driver="570.86"),
        GpuRecord(uuid="GPU-bbbb", index=1, name="NVIDIA GB10", memory_mib=0, driver="570.86"),
    ]
    assert parse_gpus("No devices were found\n") == ()


@pytest.mark.parametrize(
    ("asked", "indices"),
    [
        ("auto", [0, 1]),
        ("all", [0, 1]),
        ("none", []),
        ("0", []),
        (0, []),
        (1, [0]),
        ("2", [0, 1]),
        ("1,", [1]),
        ("1,0", [1, 0]),
        ("0,0", [0]),
        ("gpu-BBBB", [1]),
        ("GPU-bbbb,0", [1, 0]),
        ([1], [1]),
        ([0, 1], [0, 1]),
        (["GPU-aaaa"], [0]),
        ([], []),
    ],
)
def test_the_forms(asked: Any, indices: list[int]) -> None:
    assert [gpu.index for gpu in choose_gpus(asked, GPUS)] == indices


@pytest.mark.parametrize("asked", ["3", "2,", "GPU-cccc", "-1", "1.5", "some", [7]])
def test_asked_for_and_absent(asked: Any) -> None:
    with pytest.raises(RunnerError, match="GPUS="):
        choose_gpus(asked, GPUS)


@pytest.mark.parametrize("asked", ["all", "1", "0,1", "GPU-aaaa", [0]])
def test_without_a_gpu_only_auto_and_none_go_on(asked: Any) -> None:
    assert choose_gpus("auto", ()) == choose_gpus("none", ()) == ()
    with pytest.raises(RunnerError, match="no GPU"):
        choose_gpus(asked, ())


def test_a_list_that_names_none_is_refused() -> None:
    with pytest.raises(RunnerError, match=r"GPUS=',': names no GPU; the forms are auto"):
        choose_gpus(",", GPUS)
