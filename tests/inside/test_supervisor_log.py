"""How terminal output becomes lines of a log."""

import random
from pathlib import Path

import pytest

from runner.inside.supervisor import LINE_LIMIT, ROW_LIMIT, Collapser, Log


def collapsed(*chunks: bytes) -> bytes:
    """The log after these pieces of output."""
    collapser, log = Collapser(), bytearray()
    for back, data in [*(collapser.feed(chunk) for chunk in chunks), collapser.finish()]:
        assert back <= len(log)
        if back:
            del log[-back:]
        log += data
    return bytes(log)


@pytest.mark.parametrize(
    ("output", "log"),
    [
        (b"", b""),
        (b"plain\n", b"plain\n"),
        (b"no end", b"no end"),
        (b"dos\r\nlines\r\n", b"dos\nlines\n"),
        (b"\r 10%\r 20%\r100%\nnext\n", b"100%\nnext\n"),
        (b"10%\r20%\r100%\r\nnext\n", b"100%\nnext\n"),
        (b"a long state\rshort\n", b"short\n"),
        (b"50%\r", b"50%"),
        (b"a bar\r     \rtext\n", b"text\n"),
        (b"a bar\r     \r\n", b"\n"),
        (b"a bar\r\x1b[Ktext\n", b"text\n"),
        (b"a bar\x1b[2K\rtext\n", b"text\n"),
        (b"a bar\x1b[K\n", b"a bar\n"),
        (b"a bar\r\x1b[Jtext\n", b"text\n"),
        (b"12%\b\b\b34%\n", b"34%\n"),
        (b"\x1b[31mred\x1b[0m \x1b[1;38;5;2mtwo\x1b[m\n", b"red two\n"),
        (b"\x1b]0;a title\x07text \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", b"text link\n"),
        (b"one\ntwo\x1b[1A\rONE\n\rTWO\n", b"ONE\nTWO\n"),
        (b"outer 0\n\rinner 1\x1b[A\n\rinner 2\x1b[A\router 1\n\n", b"outer 1\ninner 2\n"),
        (b"one\ntwo\nthree\x1b[2F1\x1b[1E2\n\n", b"1\n2\nthree\n"),
        (b"up\x1b[99Ahigh\n", b"uphigh\n"),
        (b"trailing blanks  \nstay  \n", b"trailing blanks  \nstay  \n"),
        ("\r▏ é\r█ ü\n".encode(), "█ ü\n".encode()),
        (b"\x1b", b"\x1b"),
        (b"\x1b[12", b"\x1b[12"),
    ],
)
def test_the_last_state_of_each_line(output: bytes, log: bytes) -> None:
    assert collapsed(output) == log
    assert collapsed(*(output[i : i + 1] for i in range(len(output)))) == log, "cut anywhere, it is the same"


def test_however_it_is_cut_it_is_the_same() -> None:
    pieces = [
        b"text",
        b"\n",
        b"\r",
        b"\x1b[A",
        b"\x1b[2K",
        b"\x1b[K",
        b"\x08",
        b"  ",
        "é".encode(),
        b"\x1b[31m",
        b"\x1b]0;t\x07",
    ]
    rng = random.Random(0)
    for _ in range(300):
        output = b"".join(rng.choices(pieces, k=60))
        cuts = sorted(rng.sample(range(len(output)), 8))
        chunks = [output[a:b] for a, b in zip([0, *cuts], [*cuts, len(output)], strict=True)]
        assert collapsed(*chunks) == collapsed(output)


def test_nested_bars_do_not_grow_the_log() -> None:
    output = b"".join(b"\router %d\n\rinner %d\x1b[A" % (i // 1000, i) for i in range(10_000))
    assert collapsed(*(output[i : i + 4096] for i in range(0, len(output), 4096))) == b"outer 9\ninner 9999"


def test_a_line_longer_than_what_is_held_back() -> None:
    line = b"x" * (3 * ROW_LIMIT)
    assert collapsed(*(line[i : i + 65536] for i in range(0, len(line), 65536)), b"\nnext\n") == line + b"\nnext\n"
    assert collapsed(line, b"\r", b"new\n").endswith(b"new\n")


def test_cursor_up_never_takes_back_the_wrong_line() -> None:
    long = b"y" * (LINE_LIMIT + 1)
    assert collapsed(b"one\n" + long + b"\ntwo\x1b[2A\rzero\n\n").startswith(b"one\n" + long + b"\n")


def test_what_another_attempt_wrote_is_never_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "logs.txt"
    path.write_bytes(b"first attempt\n")
    log = Log(str(path))
    log.write(b"one\ntwo\x1b[50A\rONE\n\n")
    log.finish()
    assert path.read_bytes() == b"first attempt\nONE\ntwo\n"
