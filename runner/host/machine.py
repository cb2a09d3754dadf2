"""This machine as a value: what results may depend on, and the GPUs one can ask for."""

import os
import platform
import re
import shutil
import socket
import subprocess
from functools import cache
from pathlib import Path

from runner.contract.records import GpuRecord, MachineRecord

# The names torch.backends.cpu.get_cpu_capability() uses, widest first, with a flag that each needs.
CAPABILITIES = (("AVX512", "avx512f"), ("AVX2", "avx2"), ("NEON", "asimd"))
NVIDIA_FIELDS = "uuid,index,name,memory.total,driver_version"


@cache
def this_machine() -> MachineRecord:
    """The facts of this machine, read once a process."""
    cpu, flags = _cpu()
    return MachineRecord(
        name=machine_name(),
        cpu=cpu,
        cpu_capability=next((name for name, flag in CAPABILITIES if flag in flags), "DEFAULT"),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
        if Path("/etc/os-release").exists()
        else "Linux",
        gpus=find_gpus(),
    )


def machine_name() -> str:
    """The host's short name, as it stands in session names: letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().split(".")[0]).strip("-") or "machine"


def boot_id() -> str:
    """The kernel's id of this boot; a process cannot have survived a change of it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def find_gpus() -> tuple[GpuRecord, ...]:
    """The NVIDIA GPUs that the driver reports; () where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", f"--query-gpu={NVIDIA_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs has no GPU for us
        return ()
    return parse_gpus(asked.stdout) if asked.returncode == 0 else ()


def parse_gpus(table: str) -> tuple[GpuRecord, ...]:
    """The GPUs in nvidia-smi's CSV, one a line: uuid, index, name, memory in MiB ([N/A] where it is the machine's own),
    driver. Any other line is a message (No devices were found)."""
    rows = [[field.strip() for field in line.split(",")] for line in table.splitlines()]
    return tuple(
        GpuRecord(
            uuid=uuid,
            index=int(index),
            name=name,
            memory_mib=int(memory) if memory.isdecimal() else 0,
            driver=driver,
        )
        for uuid, index, name, memory, driver in (row for row in rows if len(row) == 5)
    )


def _cpu() -> tuple[str, frozenset[str]]:
    """Model name and feature flags of the first core."""
    try:
        text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name") or platform.machine(), frozenset(flags.split())
