"""A data set as one static page: samples by class, balance, shapes, brightness, duplicates, what cannot be read.

Everything is inside the file: pictures as data, charts as SVG. It opens from anywhere, also without a network.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_file import DatasetInfo
from runner.contract.jsonio import write_atomic
from runner.inside.dataset.examples import ArrayFiles, ImageFiles, open_raw
from runner.inside.dataset.progress import Progress
from runner.inside.dataset.sheet import first_of_class, thumbnail
from runner.inside.dataset.survey import Survey, duplicates, survey

if TYPE_CHECKING:
    from runner.inside.dataset.recipe import Variant

PAGE = "index.html"
SAMPLES = 12
"""Of each class."""
MOST_CLASSES, MOST_GROUPS, MOST_UNREADABLE = 100, 40, 500
BINS = 40
STYLE = """
:root { color-scheme: light dark; --ink: #202020; --soft: #707070; --line: #d8d8d8; --ground: #ffffff; --bar: #0072b2;
  --bad: #b3261e }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #9a9a9a; --line: #3a3a3a; --ground: #161616; --bar: #56b4e9; --bad: #ff8a80 }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 1000px;
  margin: 2rem auto; padding: 0 1rem }
h1, h2, h3 { line-height: 1.2; font-weight: 600 }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem }
table { border-collapse: collapse }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.soft { color: var(--soft) }
.bad { color: var(--bad) }
img { image-rendering: pixelated; width: 64px; height: 64px; margin: 1px; background: #fff }
code { font-size: 13px; overflow-wrap: anywhere }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem }
figure { margin: 0 }
svg rect { fill: var(--bar) }
svg text { fill: var(--soft); font-size: 11px }
.bar { display: inline-block; height: .7em; background: var(--bar) }
.scroll { overflow-x: auto }
"""

Surveys = dict[str, Survey]
Sets = dict[str, ArrayFiles | ImageFiles]


def write_page(info: DatasetInfo, found: "list[Variant]", folder: Path) -> Path:
    """Look at every example of every variant, and write the page; returns its path."""
    parts = [_head(info)]
    for variant in found:
        sets: Sets = {split: open_raw(variant.root, split, info.schema, raw=variant.raw) for split in info.splits}
        surveys = {
            split: survey(examples, info.schema, Progress(f"explore: {variant.name} {split}", len(examples)))
            for split, examples in sets.items()
        }
        parts += [f"<h2>{variant.name}</h2>", *_variant(info, sets, surveys)]
    path = folder / PAGE
    write_atomic(path, ("\n".join(parts) + "\n</body></html>\n").encode("utf-8", "backslashreplace"))
    return path


def _head(info: DatasetInfo) -> str:
    rows = [
        ("record", f"image {info.schema.image}"),
        ("raw holds", info.schema.encoding),
        ("licence", info.licence),
        ("cite", info.citation),
    ]
    table = "".join(f"<tr><td class=soft>{name}</td><td>{html.escape(text)}</td></tr>" for name, text in rows if text)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{info.name}</title>"
        f'<meta name=viewport content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{info.name}</h1><p>{html.escape(info.description)}</p><table>{table}</table>"
    )


def _variant(info: DatasetInfo, sets: Sets, surveys: Surveys) -> Iterable[str]:
    maximum = max(found.maximum for found in surveys.values())
    yield "<h3>Examples of each class</h3>"
    yield _balance(info, surveys)
    yield "<h3>Samples</h3><div class=scroll><table>"
    examples = next(iter(sets.values()))
    for label, name in enumerate(info.schema.classes[:MOST_CLASSES] or ("",)):
        images = first_of_class(examples, label if info.schema.classes else None, SAMPLES)
        cells = "".join(_picture(image, maximum) for image in images)
        yield f"<tr><td>{html.escape(name)}</td><td style='white-space:nowrap'>{cells}</td></tr>"
    yield "</table></div><h3>Shapes and brightness</h3><div class=charts>"
    seen = {split: found.shapes[found.shapes.any(axis=1)] for split, found in surveys.items()}
    shapes = np.concatenate(list(seen.values()))
    for number, axis in enumerate(("height", "width") if shapes.shape[1] >= 2 else ("length",)):
        values = shapes[:, number - 2] if shapes.shape[1] >= 2 else shapes[:, 0]
        yield _histogram(values, f"{axis}, pixels")
    brightness = np.concatenate([found.brightness for found in surveys.values()])
    yield _histogram(brightness[~np.isnan(brightness)], "mean value of an image")
    yield "</div>"
    yield _statistics(surveys)
    yield from _duplicates(sets, surveys, maximum)
    yield from _unreadable(surveys)


def _balance(info: DatasetInfo, surveys: Surveys) -> str:
    names = info.schema.classes or ("examples",)
    most = max(max(found.by_class) for found in surveys.values()) or 1
    rows = ["<tr><th>class</th>" + "".join(f"<th class=n>{split}</th><th></th>" for split in surveys) + "</tr>"]
    for number, name in enumerate(names):
        cells = "".join(
            f"<td class=n>{found.by_class[number]}</td>"
            f"<td><span class=bar style='width:{90 * found.by_class[number] / most:.0f}px'></span></td>"
            for found in surveys.values()
        )
        rows.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    totals = "".join(f"<td class=n>{sum(found.by_class)}</td><td></td>" for found in surveys.values())
    return f"<div class=scroll><table>{''.join(rows)}<tr><td class=soft>all</td>{totals}</tr></table></div>"


def _statistics(surveys: Surveys) -> str:
    rows = "".join(
        f"<tr><td>{split}</td><td>{', '.join(map(str, found.mean)) or '-'}</td><td>{', '.join(map(str, found.std)) or '-'}</td></tr>"
        for split, found in surveys.items()
    )
    return f"<table><tr><th>split</th><th>mean of each channel</th><th>std</th></tr>{rows}</table>"


def _duplicates(sets: Sets, surveys: Surveys, maximum: float) -> Iterable[str]:
    groups = duplicates(surveys)
    extra = sum(len(group) - 1 for group in groups)
    across = sum(len({split for split, _ in group}) > 1 for group in groups)
    told = f"{extra} images repeat another one pixel for pixel" if extra else "No image repeats another one"
    warning = f"; <span class=bad>{across} of them stand in more than one split</span>" if across else ""
    yield f"<h3>Duplicates</h3><p>{told}{warning}.</p>"
    if groups:
        yield "<div class=scroll><table>"
        for group in groups[:MOST_GROUPS]:
            split, index = group[0]
            names = ", ".join(f"{where} {html.escape(sets[where].reference(place))}" for where, place in group[:6])
            more = f" and {len(group) - 6} more" if len(group) > 6 else ""
            image = sets[split].images(np.array([index]))[0]
            yield f"<tr><td>{_picture(image, maximum)}</td><td><code>{names}{more}</code></td></tr>"
        yield "</table></div>"
        if len(groups) > MOST_GROUPS:
            yield f"<p class=soft>and {len(groups) - MOST_GROUPS} more groups</p>"


def _unreadable(surveys: Surveys) -> Iterable[str]:
    broken = [(split, *one) for split, found in surveys.items() for one in found.unreadable]
    told = f"<span class=bad>{len(broken)} examples cannot be read.</span>" if broken else "Every example can be read."
    yield f"<h3>Unreadable</h3><p>{told}</p>"
    if broken:
        rows = "".join(
            f"<tr><td>{split}</td><td><code>{html.escape(name)}</code></td><td>{html.escape(reason)}</td></tr>"
            for split, name, reason in broken[:MOST_UNREADABLE]
        )
        yield f"<div class=scroll><table>{rows}</table></div>"


def _picture(image: NDArray[Any], maximum: float) -> str:
    buffer = io.BytesIO()
    thumbnail(image, maximum, 64).save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _histogram(values: NDArray[Any], label: str) -> str:
    """Counts in some forty bins as an SVG, with the ends of the range and the median."""
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return f"<figure><figcaption class=soft>{label}: {low:.4g} in every image</figcaption></figure>"
    counts, _ = np.histogram(values, BINS, (low, high))
    bars = _bars(counts.tolist())
    text = f"{label}: {low:.4g} to {high:.4g}, median {float(np.median(values)):.4g}"
    return (
        f"<figure><svg width=300 height=110 role=img aria-label='{text}'>{bars}"
        f"<text x=0 y=108>{low:.4g}</text><text x=300 y=108 text-anchor=end>{high:.4g}</text></svg>"
        f"<figcaption class=soft>{text}</figcaption></figure>"
    )


def _bars(counts: Sequence[int]) -> str:
    most, width = max(counts), 300 / len(counts)
    return "".join(
        f"<rect x={number * width:.1f} y={92 - 90 * count / most:.1f} width={width - 1:.1f} height={90 * count / most:.1f} />"
        for number, count in enumerate(counts)
        if count
    )
