"""Trains in forked children and kills them; one import of torch serves them all. Reads a JSON request a line, answers a line.

A request: {"config": …, "folder": …, "trainer": …, "kill_after_s": number or null, "processes": 1}. It continues in
`folder`, from the beginning or from the newest checkpoint. The answer: {"exit": code, negative for a signal, "seconds": …}.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import tiny  # noqa: E402
import torch  # noqa: E402

from runner.training.session import Session  # noqa: E402


def child(request: dict[str, Any], rank: int, port: int) -> None:
    """Train to the end in this process."""
    folder = Path(request["folder"])
    if request["processes"] > 1:
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["processes"], "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in variables.items()}, MASTER_ADDR="127.0.0.1")
    with (
        (folder / f"output_{rank}.txt").open("a") as output,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            trainer = getattr(tiny, request["trainer"])(request["config"], session=Session.existing(folder))
            trainer.resume()
            trainer.train()
        except BaseException:
            import traceback

            traceback.print_exc()
            raise


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait or kill, tell."""
    Path(request["folder"]).mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    children = []
    for rank in range(request["processes"]):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(request, rank, port)
                code = 0
            except SystemExit as error:
                code = int(error.code or 0)
            finally:
                os._exit(code)
        children.append(pid)
    codes = [_await(pid, request, start) for pid in children]
    return {"exit": min(codes) if min(codes) < 0 else max(codes), "seconds": time.monotonic() - start}


def _await(pid: int, request: dict[str, Any], start: float) -> int:
    limit = request["kill_after_s"]
    number = getattr(signal, request.get("signal", "SIGKILL"))
    sent = False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if limit is not None and not sent and time.monotonic() - start >= limit:
            os.kill(pid, number)
            sent = True
        time.sleep(0.0005)


def warm_up() -> None:
    """A first step imports half of torch; the children shall have that behind them."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimiser.step()
    torch.optim.lr_scheduler.StepLR(optimiser, 1).step()


if __name__ == "__main__":
    torch.set_num_threads(1)
    warm_up()
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
