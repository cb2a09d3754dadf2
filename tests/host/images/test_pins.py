"""Locks as values."""

import pytest

from runner.contract.errors import RunnerError
from runner.host.images.pins import parse_pins, pins_sha256, requirements_text, thin

A, B = "a" * 64, "b" * 64


def test_a_lock_is_read_with_its_continued_lines_and_comments() -> None:
    text = f"# by hand\nFoo_Bar==1.0 \\\n    --hash=sha256:{B} \\\n    --hash=sha256:{A}\n    # via x\ntorch===2.1+cpu --hash=sha256:{A}\n"
    pins = parse_pins(text, "x.txt")
    assert [(pin.name, pin.version, pin.public, len(pin.hashes)) for pin in pins] == [
        ("foo-bar", "1.0", "1.0", 2),
        ("torch", "2.1+cpu", "2.1", 1),
    ]
    assert parse_pins(requirements_text(pins), "again") == pins


def test_comments_and_order_do_not_count_but_a_hash_does() -> None:
    one = parse_pins(f"a==1 --hash=sha256:{A}\nb==2 --hash=sha256:{B}\n", "x")
    other = parse_pins(f"# hello\nb==2 --hash=sha256:{B}\na==1 --hash=sha256:{A}\n", "x")
    assert pins_sha256(one) == pins_sha256(other)
    assert pins_sha256(one) != pins_sha256(parse_pins(f"a==1 --hash=sha256:{B}\nb==2 --hash=sha256:{B}\n", "x"))


@pytest.mark.parametrize("line", ["a==1", "a>=1 --hash=sha256:" + A, "--index-url https://u:p@host/simple", "-e ."])
def test_what_is_no_pin_with_a_hash_is_refused(line: str) -> None:
    with pytest.raises(RunnerError, match=r"^x\.txt: .* is not name==version with --hash"):
        parse_pins(line, "x.txt")


def test_a_layer_holds_only_what_is_not_below() -> None:
    below = parse_pins(f"numpy==2.0 --hash=sha256:{A}\ntorch==2.1+cpu --hash=sha256:{A}\n", "base")
    above = parse_pins(f"numpy==2.0 --hash=sha256:{A}\ntorch==2.1 --hash=sha256:{B}\nextra==1 --hash=sha256:{A}\n", "p")
    assert [pin.name for pin in thin(above, below, "p.txt")] == ["extra"]
    with pytest.raises(RunnerError, match=r"^p\.txt: pins numpy 3\.0, but its base has 2\.0; run `make lock`"):
        thin(parse_pins(f"numpy==3.0 --hash=sha256:{A}\n", "p"), below, "p.txt")
