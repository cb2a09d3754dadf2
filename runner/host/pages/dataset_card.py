"""A data set's README.md: what people wrote, and between two markers for each variant what the `readme` stage found.

    <!-- facts of toy: begin; made by `make dataset DATASET=cifar10 STAGE=readme` -->
    ...
    <!-- facts of toy: end -->

The block is a pure function of `readme/<variant>.json`, and carries the fingerprints of the data that it is about: whether it
still tells the truth can be seen without reading an image.
"""

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
_MARKS = re.compile(r"<!-- facts of (\w+): begin.*?-->\n(.*?)<!-- facts of \1: end -->\n", re.DOTALL)
_FINGERPRINT = re.compile(r"^\| fingerprint of (\w+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def write_card(info: DatasetInfo, data: Path, say: Callable[[str], None]) -> None:
    """Put the facts of every variant that is there into README.md, and the pictures beside it; all else in it stays."""
    path = info.folder / CARD
    text = path.read_text() if path.exists() else f"# {info.name}\n"
    for variant in VARIANTS:
        facts = data / README / f"{variant}.json"
        if facts.is_file():
            text = with_block(text, info, variant, block(read_json(facts), variant))
            with atomic_path(info.folder / picture(variant)) as temporary:
                shutil.copyfile(data / README / f"{variant}.png", temporary)
    if not path.exists() or path.read_text() != text:
        write_atomic(path, text.encode())
        say(f"{info.name}: {path} tells of the data that is there")


def picture(variant: str) -> str:
    """The file name of a variant's picture, beside README.md."""
    return f"samples_{variant}.png"


def with_block(text: str, info: DatasetInfo, variant: str, content: str) -> str:
    """`text` with the block of a variant in its place, or at the end where it has none yet."""
    marked = (
        f"<!-- facts of {variant}: begin; made by `make dataset DATASET={info.name} STAGE=readme` -->\n"
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
    rows += [("mean of each channel, train", mean or "-"), ("std of each channel, train", std or "-")]
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


def untruths(info: DatasetInfo, data: Path) -> tuple[list[str], list[str]]:
    """What README.md says that is not so, and for each variant what could be told."""
    path = info.folder / CARD
    if not path.is_file():
        return [f"{path}: not there; make it with `make dataset DATASET={info.name}`"], []
    blocks = {found[1]: found[2] for found in _MARKS.finditer(path.read_text())}
    wrong, told = [], []
    for variant in VARIANTS:
        root = data / TOY if variant == TOY else data
        parts = {part: root / part for part in ("raw", "lists") if (root / part).is_dir()}
        if variant not in blocks:
            told.append(f"{variant}: not in README.md" + (", though it is there" if parts else ""))
            wrong += [f"{path}: says nothing of {variant}, which is there"] * bool(parts)
            continue
        if not parts:
            told.append(f"{variant}: not here, so not looked at")
            continue
        said, seen = (
            dict(_FINGERPRINT.findall(blocks[variant])),
            {part: fingerprint(p).sha256 for part, p in parts.items()},
        )
        changed = [part for part in seen if said.get(part) != seen[part]]
        wrong += [
            f"{path}: {variant}: {part} is not what it tells of (fingerprint {seen[part][:12]})" for part in changed
        ]
        facts = data / README / f"{variant}.json"
        if not changed and facts.is_file() and block(read_json(facts), variant) != blocks[variant]:
            wrong.append(f"{path}: {variant}: was changed between its markers")
        told.append(f"{variant}: " + ("has changed since" if changed else "as README.md tells"))
    if wrong:
        wrong[-1] += f"; `make dataset DATASET={info.name} STAGE={README}` writes it anew"
    return wrong, told
