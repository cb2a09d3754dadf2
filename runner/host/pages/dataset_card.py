"""A data set's README.md: what people wrote, and between two markers for each variant what the `readme` stage found.

    <!-- facts of toy: begin 0123456789abcdef; made by `make dataset DATASET=cifar10 STAGE=readme` -->
    ...
    <!-- facts of toy: end -->

The block is a pure function of `readme/<variant>.json`. It carries a hash of itself and the fingerprints of the data that it
is about: whether it still tells the truth can be seen without reading an image, also where nothing but the README came along.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner.contract.dataset_file import DatasetInfo
from runner.contract.dataset_schema import schema_from_json
from runner.contract.fingerprint import fingerprint
from runner.contract.jsonio import atomic_path, read_json, write_atomic
from runner.contract.layout import TOY
from runner.contract.preparation import README
from runner.host.pages.terminal import size

CARD = "README.md"
VARIANTS = ("full", TOY)
_MARKS = re.compile(r"<!-- facts of (\w+): begin (\w*);.*?-->\n(.*?)<!-- facts of \1: end -->\n", re.DOTALL)
_FINGERPRINT = re.compile(r"^\| fingerprint of (\w+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def write_card(info: DatasetInfo, data: Path, say: Callable[[str], None]) -> None:
    """Put the facts of every variant that is there into README.md, and the pictures beside it; all else in it stays."""
    path = info.folder / CARD
    text = _read(path) if path.exists() else f"# {info.name}\n"
    for variant in VARIANTS:
        facts = data / README / f"{variant}.json"
        if facts.is_file():
            text = with_block(text, info, variant, block(read_json(facts), variant))
            with atomic_path(info.folder / picture(variant)) as temporary:
                shutil.copyfile(data / README / f"{variant}.png", temporary)
    if not path.exists() or _read(path) != text:
        write_atomic(path, text.encode("utf-8", "surrogateescape"))
        say(f"{info.name}: {path} tells of the data that is there")


def picture(variant: str) -> str:
    """The file name of a variant's picture, beside README.md."""
    return f"samples_{variant}.png"


def with_block(text: str, info: DatasetInfo, variant: str, content: str) -> str:
    """`text` with the block of a variant in its place, or at the end where it has none yet."""
    marked = (
        f"<!-- facts of {variant}: begin {_hash(content)}; made by `make dataset DATASET={info.name} STAGE=readme` -->\n"
        f"{content}<!-- facts of {variant}: end -->\n"
    )
    for found in _MARKS.finditer(text):
        if found[1] == variant:
            return text[: found.start()] + marked + text[found.end() :]
    return text.rstrip("\n") + "\n\n" + marked


def block(facts: Mapping[str, Any], variant: str) -> str:
    """The facts of one variant as Markdown."""
    schema = schema_from_json(facts["schema"], f"{README}/{variant}.json")
    splits = facts["splits"]
    rows = [
        ("examples", ", ".join(f"{split} {found['examples']:,}" for split, found in splits.items())),
        ("image", f"{schema.image}, in raw as {schema.encoding}"),
    ]
    if not schema.fixed:
        least, most = (" x ".join(map(str, facts["shapes"][end])) for end in ("least", "most"))
        rows.append(("sizes", f"from {least} to {most}"))
    mean, std = (", ".join(f"{value:g}" for value in facts[key]) for key in ("mean", "std"))
    rows += [
        (f"{name} of each channel, {facts['measured']}", text or "-") for name, text in (("mean", mean), ("std", std))
    ]
    rows += [
        (f"size of {part}", f"{one['files']:,} files, {size(one['bytes'])}") for part, one in facts["parts"].items()
    ]
    rows += [(f"fingerprint of {part}", f"`{value}`") for part, value in facts["fingerprints"].items()]
    lines = [
        f"## What is there: {variant}",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {text} |" for name, text in rows),
        "",
    ]
    if schema.classes:
        lines += ["| class | " + " | ".join(splits) + " |", "| --- |" + " ---: |" * len(splits)]
        lines += [
            f"| {name} | " + " | ".join(f"{found['by_class'][number]:,}" for found in splits.values()) + " |"
            for number, name in enumerate(schema.classes)
        ]
        lines.append("")
    return "\n".join([*lines, f"![examples of each class, {variant}]({picture(variant)})", "", ""])


def untruths(info: DatasetInfo, data: Path, cache: Path) -> tuple[list[str], list[str]]:
    """What README.md says that is not so, and for each variant what could be told. `cache` remembers checksums."""
    path = info.folder / CARD
    if not path.is_file():
        return [f"{path}: not there; make it with `make dataset DATASET={info.name}`"], []
    blocks = {found[1]: found for found in _MARKS.finditer(_read(path))}
    wrong, told = [], []
    for variant in VARIANTS:
        root = data / TOY if variant == TOY else data
        parts = {part: root / part for part in ("raw", "lists") if (root / part).is_dir()}
        problems, words = _untruths_of(info, variant, blocks.get(variant), parts, cache)
        wrong += [f"{path}: {variant}: {problem}" for problem in problems]
        told.append(f"{variant}: {words}")
    if wrong:
        wrong[-1] += f"; `make dataset DATASET={info.name} STAGE={README}` writes it anew"
    return wrong, told


def _untruths_of(
    info: DatasetInfo, variant: str, found: "re.Match[str] | None", parts: Mapping[str, Path], cache: Path
) -> tuple[list[str], str]:
    """The same of one variant, of which `parts` are there."""
    if found is None:
        return (
            (["is there, and nothing is said of it"], "not in README.md")
            if parts
            else ([], "neither here nor in README.md")
        )
    problems = [] if found[2] == _hash(found[3]) else ["was changed between its markers"]
    if not (info.folder / picture(variant)).is_file():
        problems.append(f"{picture(variant)} is not there")
    said = dict(_FINGERPRINT.findall(found[3]))
    seen = {part: fingerprint(path, cache=cache).sha256 for part, path in parts.items()}
    changed = [part for part in seen if said.get(part) != seen[part]]
    problems += [f"{part} is not what it tells of (fingerprint {seen[part][:12]})" for part in changed]
    if changed:
        return problems, "has changed since"
    return problems, "as README.md tells" if parts else "not here, so not looked at"


def _read(path: Path) -> str:
    """A README as it stands, whatever its line ends and bytes."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:16]
