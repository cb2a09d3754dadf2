"""The supervisor as it is run: real commands, signals, terminals, full disks."""

import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SUPERVISOR = Path(__file__).resolve().parents[2] / "runner/inside/supervisor.py"
PYTHON = (sys.executable, "-I", "-S", str(SUPERVISOR))


@dataclass
class Ended:
    """A supervised command after its end."""

    code: int
    stdout: bytes
    stderr: bytes
    log: bytes
    record: dict[str, Any]


class Bench:
    """Runs commands under the supervisor in a folder."""

    def __init__(self, folder: Path) -> None:
        self.log, self.exit = folder / "logs.txt", folder / "exit.json"

    def line(self, *argv: str, options: tuple[str, ...] = (), log: Path | str | None = None) -> list[str]:
        """The command line."""
        return [*PYTHON, "--log", str(log or self.log), "--exit", str(self.exit), *options, "--", *argv]

    def start(self, *argv: str, **changes: Any) -> "subprocess.Popen[bytes]":
        """Start and do not wait."""
        return subprocess.Popen(self.line(*argv, **changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def ended(self, process: "subprocess.Popen[bytes]") -> Ended:
        """Wait for the end."""
        stdout, stderr = process.communicate(timeout=60)
        log = self.log.read_bytes() if self.log.is_file() else b""
        return Ended(
            process.returncode,
            stdout,
            stderr,
            log,
            json.loads(self.exit.read_text()) if self.exit.is_file() and self.exit.stat().st_size else {},
        )

    def __call__(self, *argv: str, **changes: Any) -> Ended:
        return self.ended(self.start(*argv, **changes))

    def sh(self, code: str, **changes: Any) -> Ended:
        """Run shell code."""
        return self("sh", "-c", code, **changes)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class TestEnd:
    def test_exit_code(self, bench: Bench) -> None:
        ended = bench.sh("echo out; echo err >&2; exit 3")
        assert (ended.code, ended.stdout, ended.log) == (3, b"out\nerr\n", b"out\nerr\n")
        record = ended.record
        assert (record["schema_version"], record["exit_code"], record["signal"], record["received"]) == (1, 3, None, [])
        assert "2020" < record["started"] <= record["finished"] and record["finished"].endswith("Z")
        assert "log_error" not in record and "error" not in record

    @pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGBUS", "SIGTERM", "SIGABRT"])
    def test_a_signal_ends_it(self, bench: Bench, name: str) -> None:
        number = signal.Signals[name].value
        ended = bench("python3", "-c", f"import os; os.kill(os.getpid(), {number})")
        assert (ended.code, ended.record["exit_code"], ended.record["signal"]) == (128 + number, 128 + number, name)

    def test_no_such_command(self, bench: Bench, tmp_path: Path) -> None:
        ended = bench("nonesuch", "x")
        assert ended.code == ended.record["exit_code"] == 127
        assert ended.log == ended.stdout == b"supervisor: nonesuch: command not found\n"
        ended = bench(str(tmp_path / "gone/x"))
        assert ended.code == 127

    def test_a_command_that_cannot_be_executed(self, bench: Bench, tmp_path: Path) -> None:
        script = tmp_path / "script"
        script.write_text("#!/no/such/interpreter\n")
        ended = bench(str(script))
        assert (ended.code, b"Permission denied" in ended.log) == (126, True)
        script.chmod(0o755)
        ended = bench(str(script))
        assert (ended.code, b"the interpreter that its first line names does not exist" in ended.log) == (126, True)
        script.write_text("no interpreter line")
        assert bench(str(script)).code == 126

    def test_an_orphan_does_not_hold_the_end_up(self, bench: Bench) -> None:
        started = time.monotonic()
        ended = bench.sh("sleep 30 & echo done; exit 4")
        assert (ended.code, ended.stdout) == (4, b"done\n")
        assert time.monotonic() - started < 3

    def test_an_orphan_that_talks_does_not_either(self, bench: Bench) -> None:
        started = time.monotonic()
        ended = bench.sh("(while sleep 0.01; do echo more || exit; done) & echo done; exit 4")
        assert (ended.code, ended.stdout[:5]) == (4, b"done\n")
        assert time.monotonic() - started < 10

    def test_all_that_was_written_before_the_end_arrives(self, bench: Bench) -> None:
        for _ in range(5):
            ended = bench("python3", "-c", "import os; os.write(1, b'x' * 65536); os._exit(0)")
            assert ended.stdout == b"x" * 65536
        assert len(ended.log) == 5 * 65536

    def test_a_command_that_closes_its_output_goes_on(self, bench: Bench) -> None:
        ended = bench.sh("exec >&- 2>&-; sleep 0.3; exit 5")
        assert ended.code == 5

    def test_the_record_is_written_in_place(self, bench: Bench) -> None:
        """It is a bind-mounted file: the same file before and after."""
        bench.exit.touch()
        before = bench.exit.stat().st_ino
        assert bench.sh("exit 0").record["exit_code"] == 0
        assert bench.exit.stat().st_ino == before

    def test_wrong_use(self, tmp_path: Path) -> None:
        for words in ([], ["--log", "x"], ["--log", "x", "--exit", "y"], ["--wrong", "--", "true"]):
            done = subprocess.run([*PYTHON, *words], capture_output=True, text=True, check=False)
            assert done.returncode == 1 and "usage: supervisor.py" in done.stderr


class TestSignals:
    CODE = (
        "import signal, sys, time\n"
        "for n in (1, 2, 3, 10, 12, 15): signal.signal(n, lambda n, f: print(signal.Signals(n).name, flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
    def test_they_reach_the_command(self, bench: Bench, name: str) -> None:
        process = bench.start("python3", "-c", self.CODE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.Signals[name])
        assert process.stdout.readline() == name.encode() + b"\n"
        os.kill(int(child_of(process.pid)), signal.SIGKILL)
        ended = bench.ended(process)
        assert (ended.record["received"], ended.record["signal"]) == ([name], "SIGKILL")

    def test_the_command_alone_gets_them(self, bench: Bench) -> None:
        """Not its group: DataLoader workers must not die before the command knows."""
        worker = "import signal, time; signal.signal(15, lambda *a: print('worker', flush=True)); time.sleep(3)"
        code = (
            "import signal, subprocess, sys, time\n"
            f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}]); time.sleep(0.5)\n"
            "def end(*a): worker.kill(); sys.exit(143)\n"
            "signal.signal(15, end); print('ready', flush=True)\n"
            "while True: time.sleep(0.05)\n"
        )
        process = bench.start("python3", "-c", code)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        ended = bench.ended(process)
        assert (ended.code, ended.log) == (143, b"ready\n")

    def test_one_that_comes_at_once_is_not_lost(self, bench: Bench) -> None:
        """Sent as early as the supervisor can take it, it ends the command or, sooner, the supervisor; nothing hangs."""
        for delay in (0.01, 0.02, 0.03, 0.05):
            process = bench.start("sleep", "20")
            time.sleep(delay)
            process.terminate()
            assert process.wait(timeout=5) in (143, -signal.SIGTERM)
            bench.ended(process)

    def test_ignored_signals_are_not_inherited(self, bench: Bench) -> None:
        code = (
            "import signal\n"
            "print(signal.getsignal(2) is signal.default_int_handler, signal.getsignal(15), signal.pthread_sigmask(0, []))"
        )
        line = " ".join(f"'{word}'" for word in bench.line("python3", "-c", code))
        done = subprocess.run(["sh", "-c", f"trap '' INT TERM; {line}"], capture_output=True, text=True, check=True)
        assert done.stdout == "True 0 set()\n"


class TestOutput:
    def test_it_comes_at_once(self, bench: Bench) -> None:
        process = bench.start("sh", "-c", "printf '10%%\\r'; sleep 5")
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 3)
        assert ready and os.read(process.stdout.fileno(), 100) == b"10%\r"
        os.kill(int(child_of(process.pid)), signal.SIGKILL)
        assert bench.ended(process).log == b"10%"

    def test_bytes_of_any_kind(self, bench: Bench) -> None:
        data = bytes(range(256)).replace(b"\r", b"").replace(b"\x08", b"").replace(b"\x1b", b"") * 500
        ended = bench("python3", "-c", f"import sys; sys.stdout.buffer.write({data[:243]!r} * 500)")
        assert ended.stdout == ended.log == data[:243] * 500

    def test_a_line_without_an_end_costs_no_memory(self, bench: Bench) -> None:
        code = "import os\nfor _ in range(3000): os.write(1, b'x' * 65536)"
        line = bench.line("python3", "-c", code)
        probe = (
            "import resource, subprocess, sys\n"
            f"subprocess.run({line!r}, stdout=subprocess.DEVNULL, check=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        )
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        assert bench.log.stat().st_size == 3000 * 65536
        assert int(done.stdout) < 60_000  # KiB
        bench.log.unlink()

    def test_lines_go_to_the_log_as_they_come(self, bench: Bench) -> None:
        process = bench.start("sh", "-c", "echo first; sleep 5")
        assert process.stdout is not None and process.stdout.readline() == b"first\n"
        deadline = time.monotonic() + 3
        while bench.log.read_bytes() != b"first\n":
            assert time.monotonic() < deadline
        process.kill()
        process.wait()
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()

    def test_the_log_is_continued(self, bench: Bench) -> None:
        """A resume writes to the same file."""
        bench.sh("echo one; printf two")
        assert bench.sh("echo; echo three").log == b"one\ntwo\nthree\n"

    def test_nobody_reads_our_stdout(self, bench: Bench) -> None:
        process = bench.start("sh", "-c", "sleep 0.3; for i in 1 2 3; do echo $i; sleep 0.05; done; exit 6")
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        ended = bench.ended(process)
        assert (ended.code, ended.log) == (6, b"1\n2\n3\n")

    def test_stdin_is_empty_unless_asked_for(self, bench: Bench) -> None:
        for options, expected in (((), b"|"), (("--stdin",), b"given|")):
            done = subprocess.run(
                bench.line("sh", "-c", "cat; printf '|'", options=options),
                input=b"given",
                capture_output=True,
                check=True,
            )
            assert done.stdout == expected


class TestTrouble:
    @pytest.mark.parametrize("path", ["/dev/full", "/no/such/folder/log"])
    def test_a_log_that_cannot_be_written(self, bench: Bench, path: str) -> None:
        ended = bench.sh("for i in 1 2 3; do echo $i; sleep 0.02; done; exit 7", log=path)
        assert (ended.code, ended.stdout) == (7, b"1\n2\n3\n")
        assert ended.stderr.count(b"\n") == 1 and path.encode() in ended.stderr
        reason = "No space left on device" if path == "/dev/full" else "No such file or directory"
        assert ended.record["log_error"] == f"{path}: {reason}"

    def test_a_record_that_cannot_be_written(self, bench: Bench, tmp_path: Path) -> None:
        bench.exit = tmp_path / "no folder/exit.json"
        process = bench.start("sh", "-c", "echo x; exit 8")
        stdout, stderr = process.communicate(timeout=20)
        assert (process.returncode, stdout) == (8, b"x\n")
        assert b"how the command ends cannot be recorded: No such file or directory" in stderr


class TestSurroundings:
    def test_umask_home_and_session(self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "deep/home"))
        code = f"touch {tmp_path}/made; test -d ~ && echo home; test $(ps -o sid= -p $$) = $$ && echo leader"
        ended = bench.sh(code, options=("--umask", "027"))
        assert ended.log == b"home\nleader\n"
        assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o640
        assert stat.S_IMODE(bench.log.stat().st_mode) == 0o640

    def test_no_descriptor_leaks_in(self, bench: Bench) -> None:
        assert bench.sh("ls /proc/self/fd | tr '\\n' ' '").stdout == b"0 1 2 3 "  # 3 is ls's own

    def test_arguments_and_environment_pass_as_they_are(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        odd = ["", "a b", "--", "--log", "$x", "é", "x\ny"]
        monkeypatch.setenv("ODD", "a\nb=c")
        ended = bench("python3", "-c", "import os, sys; print(repr((sys.argv[1:], os.environ['ODD'])))", *odd)
        assert ended.stdout.decode() == repr((odd, "a\nb=c")) + "\n"


class TestTerminal:
    def test_the_command_has_one_of_this_size(self, bench: Bench) -> None:
        code = "test -t 1 && test -t 2 && ! test -t 0 && stty size < /dev/tty; printf 'a\\nb\\n'"
        assert bench.sh(code, options=("--pty", "123x45")).stdout == b"45 123\na\nb\n"

    def test_all_of_much_output_arrives(self, bench: Bench) -> None:
        ended = bench("python3", "-c", "for i in range(50_000): print(i)", options=("--pty", "80x24"))
        assert ended.stdout == ended.log == b"".join(b"%d\n" % i for i in range(50_000))

    def test_an_orphan_does_not_hold_the_end_up(self, bench: Bench) -> None:
        started = time.monotonic()
        assert bench.sh("setsid sleep 30 & exit 4", options=("--pty", "80x24")).code == 4
        assert time.monotonic() - started < 3

    def test_our_own_terminal_is_left_alone(self, bench: Bench) -> None:
        """Run on a terminal without --pty, the command's is a pipe: no stray carriage returns in the log."""
        master, slave = pty.openpty()
        process = subprocess.Popen(bench.line("sh", "-c", "test -t 1 || echo pipe"), stdout=slave, stderr=slave)
        os.close(slave)
        assert process.wait(timeout=20) == 0
        assert os.read(master, 100) == b"pipe\r\n"
        os.close(master)
        assert bench.log.read_bytes() == b"pipe\n"

    def test_a_real_progress_bar(self, bench: Bench) -> None:
        tqdm = pytest.importorskip("tqdm", reason="tqdm is not installed here")
        code = (
            f"import sys; sys.path.insert(0, {str(Path(tqdm.__file__).parents[1])!r})\n"
            "from tqdm import tqdm\n"
            "for epoch in tqdm(range(3), desc='outer', position=0, ncols=60):\n"
            "    for i in tqdm(range(50), desc='inner', position=1, leave=False, mininterval=0, ncols=60): pass\n"
            "    tqdm.write(f'epoch {epoch}')\n"
            "print('end')\n"
        )
        log = bench(sys.executable, "-c", code, options=("--pty", "80x24")).log.decode()
        assert [line for line in log.splitlines() if line.startswith("epoch")] == ["epoch 0", "epoch 1", "epoch 2"]
        assert "outer: 100%" in log and "end" in log and len(log) < 1500


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, runpy; sys.argv = ['x']\n"
        f"runpy.run_path({str(SUPERVISOR)!r})\n"
        "print([m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names and m != '__main__'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def child_of(pid: int) -> str:
    """The pid of its only child."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
