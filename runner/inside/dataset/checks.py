"""What must hold of a data set before anybody trains on it: of the raw tree, and of its list files."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_schema import Schema
from runner.contract.errors import RunnerError
from runner.contract.tree_walk import shown_path, walk
from runner.inside.dataset.examples import ArrayFiles, open_listed
from runner.inside.dataset.lists import DataError, Labels, ListFile
from runner.inside.dataset.pictures import shown
from runner.inside.dataset.progress import Progress

Balance = dict[str, list[int]]
"""For each split the number of examples of each class."""


def check_tree(raw: Path) -> None:
    """Refuse a raw tree that is not the same everywhere.

    Raises:
        DataError: a symlink that loops, dangles or leads out; a file that is no file; two names that differ in case alone.
    """
    try:
        names = walk(raw, ask=False).names
    except RunnerError as error:
        raise DataError(str(error)) from None
    if not names:
        raise DataError(f"{shown(raw)}: found no file in it")
    lowered = np.array([_digest(os.fsdecode(name).casefold().encode("utf-8", "surrogateescape")) for name in names])
    twins = _equal_pairs(lowered)
    if twins:
        one, other = (shown_path(names[index]) for index in twins[0])
        raise DataError(
            f"{shown(raw)}: {one} and {other} differ in upper and lower case alone: on some machines they are one file; "
            f"rename one"
        )


def check_lists(root: Path, folder: Path, splits: Mapping[str, str], schema: Schema, raw: Path) -> Balance:
    """Refuse lists with an example that is not there, stands twice, stands in two splits, or has an impossible label.

    The pixels of image files are not looked at here, only that each begins as an image of the right shape.

    Raises:
        DataError: the first such line, named.
    """
    lists = {split: ListFile(folder / f"{split}.txt") for split in splits}
    for listed in lists.values():
        for _ in listed:  # each line names a place in the data set, in the one way of writing it
            pass
        if not len(listed):
            raise DataError(f"{shown(listed.path)}: empty; expected at least one example")
        _check_labels(listed, schema)
    _check_once(lists)
    for listed in lists.values():
        examples = open_listed(root, listed, schema, raw=raw)
        examples.check(Progress(f"lists: {listed.path.stem}", len(listed)))
        if isinstance(examples, ArrayFiles) and "label" in schema.record:
            _check_records(listed, examples)
    return {split: class_counts(listed.labels, schema).tolist() for split, listed in lists.items()}


def class_counts(labels: Labels, schema: Schema) -> NDArray[np.int64]:
    """The number of examples of each class; all together where labels are no classes."""
    return np.bincount(labels, minlength=len(schema.classes)) if schema.classes else np.array([len(labels)])


def balance_table(balance: Balance, schema: Schema) -> str:
    """The class balance as lines of text."""
    names = schema.classes or ("examples",)
    width = max(len(name) for name in (*names, "class"))
    rows = [("class", *balance), *((name, *(str(balance[s][n]) for s in balance)) for n, name in enumerate(names))]
    if len(names) > 1:
        rows.append(("all", *(str(sum(counts)) for counts in balance.values())))
    return "\n".join(f"  {row[0]:<{width}}" + "".join(f"{cell:>9}" for cell in row[1:]) for row in rows)


def _check_labels(listed: ListFile, schema: Schema) -> None:
    classes = len(schema.classes)
    wrong = np.flatnonzero((listed.labels < 0) | (listed.labels >= classes)) if classes else np.empty(0, np.int64)
    if wrong.size:
        line = int(wrong[0])
        raise DataError(f"{shown(listed.path)}:{line + 1}: label {listed.labels[line]}, expected 0..{classes - 1}")


def _check_once(lists: Mapping[str, ListFile]) -> None:
    """By digests of 8 bytes, then by the lines themselves: memory stays small for millions of lines."""
    digests = np.concatenate(
        [np.fromiter(map(_digest, one.references()), np.uint64, len(one)) for one in lists.values()]
    )
    for pair in _equal_pairs(digests):
        (first, line), (second, again) = (_line_at(lists, index) for index in pair)
        reference = list(_nth(lists[first].references(), line))
        if reference == list(_nth(lists[second].references(), again)):
            where = f"{first}.txt:{line + 1} and {second}.txt:{again + 1}"
            raise DataError(f"lists: {shown_path(reference[0])} stands in {where}; expected each example once")


def _nth(references: Iterator[bytes], number: int) -> Iterator[bytes]:
    return (reference for index, reference in enumerate(references) if index == number)


def _line_at(lists: Mapping[str, ListFile], index: int) -> tuple[str, int]:
    for split, listed in lists.items():
        if index < len(listed):
            return split, index
        index -= len(listed)
    raise IndexError(index)


def _digest(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _equal_pairs(digests: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Pairs of places with equal values, in order of the first."""
    order = np.argsort(digests, kind="stable")
    same = np.flatnonzero(digests[order][1:] == digests[order][:-1])
    return sorted((int(order[index]), int(order[index + 1])) for index in same)


def _check_records(listed: ListFile, examples: ArrayFiles) -> None:
    """Where a record holds a label, it is the list's."""
    for start in range(0, len(listed), 65_536):
        indices = np.arange(start, min(start + 65_536, len(listed)))
        labels = examples.rows("label", indices).astype(np.int64)
        wrong = np.flatnonzero(labels != listed.labels[indices])
        if wrong.size:
            line, label = int(indices[wrong[0]]), int(labels[wrong[0]])
            raise DataError(
                f"{shown(listed.path)}:{line + 1}: label {listed.labels[line]}, but {examples.reference(line)} holds label {label}"
            )
