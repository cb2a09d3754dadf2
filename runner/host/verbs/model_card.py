"""The card of a model for people."""

from collections.abc import Mapping
from typing import Any

from runner.contract.yaml12 import dump_yaml


def card_text(card: Mapping[str, Any]) -> str:
    """Markdown: how good, trained on what, by which code, and how to use it."""
    reference = f"models/{card['name']}/{card['version']}"
    lines = [f"# {card['name']} {card['version']}", ""]
    lines += _released(card) if card["kind"] == "release" else [f"Weights from outside: {card['origin']}", ""]
    lines += [
        f"- file: `{card['file']}`, {card['size']:,} bytes",
        f"- sha256: `{card['sha256']}`",
        f"- added: {card['created']}",
        "",
        f"Start from it in another project's config: `init_from: {reference}`",
        "",
    ]
    if card["kind"] == "release":
        lines += ["## Config", "", "```yaml", dump_yaml(dict(card["config"])).rstrip(), "```", ""]
    return "\n".join(lines)


def _released(card: Mapping[str, Any]) -> list[str]:
    lines = []
    if card["score"] is not None:
        lines.append(f"- {card['score_name'] or 'score'} (validation): {card['score']:.4f} after step {card['step']}")
    for one in card["evaluations"]:
        lines.append(f"- score on {one['split']} ({', '.join(one['data']) or 'no data set'}): {one['score']:.4f}")
    for data in card["data"]:
        lines.append(f"- trained on: {data['name']} ({data['variant']}), fingerprint `{data['fingerprint']}`")
    lines.append(f"- run: {card['run']} of {card['project']}, checkpoint {card['checkpoint']}")
    if card["source"] is not None:
        commit = f", on top of commit `{card['source']['commit']}`" if card["source"]["commit"] else ""
        lines.append(f"- source: tree `{card['source']['tree']}`{commit}")
    lines.append(f"- image: `{card['image']}`")
    if not card["reproducible"]:
        lines.append("- note: the run is not reproducible; its manifest says why")
    return lines
