"""What one example of a data set is: dataset.yml says it, `lists/schema.json` takes it along with the data.

A reader needs nothing but a data set's folder: raw/, lists/ with the schema, lmdb/.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.jsonio import read_json
from runner.contract.yaml12 import type_name

BINARY, NPY, IMAGE = "binary", "npy", "image"
ENCODINGS = (BINARY, NPY, IMAGE)
"""How raw/ holds examples: records of one size in files (`raw/a.bin#17`), rows of numpy arrays (`raw/images.npy#17`), or an
image file each (`raw/a.png`)."""
SCHEMA_JSON = "schema.json"
_SCHEMA_VERSION = 1
_DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class ArrayField:
    """One array of an example."""

    dtype: str
    """As numpy names it. In files the least significant byte comes first."""
    shape: tuple[int | None, ...]
    """None where it differs from example to example. An image is (channels, height, width)."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of an array that is of one shape in every example."""
        assert None not in self.shape
        return tuple(size for size in self.shape if size is not None)

    def __str__(self) -> str:
        sizes = ", ".join("*" if size is None else str(size) for size in self.shape)
        return f"{self.dtype} ({sizes}{',' if len(self.shape) == 1 else ''})"


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What one example is. Two data sets of one schema can stand in for each other."""

    encoding: str
    """One of ENCODINGS."""
    record: Mapping[str, ArrayField]
    """The arrays of an example, in the order in which a binary record holds them."""
    classes: tuple[str, ...] = ()
    """Label n is the n-th; () where labels are no classes."""

    @property
    def image(self) -> ArrayField:
        """The array that list files name."""
        return self.record["image"]

    @property
    def fixed(self) -> bool:
        """Whether every example has the same shape."""
        return None not in self.image.shape

    def to_json(self) -> dict[str, Any]:
        """As schema.json holds it."""
        record = [{"name": name, **asdict(field)} for name, field in self.record.items()]
        return {
            "schema_version": _SCHEMA_VERSION,
            "encoding": self.encoding,
            "record": record,
            "classes": list(self.classes),
        }

    def differences(self, other: "Schema") -> list[str]:
        """In what `other` is not the same, in words."""
        pairs = (
            ("encoding", self.encoding, other.encoding),
            ("record", _words(self), _words(other)),
            ("classes", ", ".join(self.classes), ", ".join(other.classes)),
        )
        return [f"{name}: {one or 'none'} and {two or 'none'}" for name, one, two in pairs if one != two]


def _words(schema: Schema) -> str:
    return ", ".join(f"{name} {field}" for name, field in schema.record.items())


def schema_from_json(value: Any, name: str) -> Schema:
    """The schema that `to_json` gave; `name` is what to call it in an error.

    Raises:
        RunnerError: it is none, or of another version.
    """
    if not isinstance(value, dict) or value.get("schema_version") != _SCHEMA_VERSION:
        raise RunnerError(f"{name}: not a schema of schema_version {_SCHEMA_VERSION}; make the lists again")
    try:
        record = {one["name"]: ArrayField(dtype=one["dtype"], shape=tuple(one["shape"])) for one in value["record"]}
        return Schema(encoding=value["encoding"], record=record, classes=tuple(value["classes"]))
    except (KeyError, TypeError) as error:
        raise RunnerError(f"{name}: not a whole schema ({error}); make the lists again") from None


def read_schema(root: Path) -> Schema:
    """The schema of the data set at `root`.

    Raises:
        RunnerError: it has none.
    """
    path = root / "lists" / SCHEMA_JSON
    return schema_from_json(read_json(path), str(path))


def parse_schema(raw: Mapping[str, Any], problems: list[str]) -> Schema:
    """The schema in a dataset.yml: its keys encoding, record and classes. What is wrong is added to `problems`."""
    encoding, classes = raw.get("encoding"), raw.get("classes") or []
    if encoding not in ENCODINGS:
        problems.append(f"encoding: found {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    names = [str(name) for name in classes] if isinstance(classes, list) else [""]
    if len({*names}) != len(names) or any(not name or set(name) & set("|\n\r\t") for name in names):
        problems.append("classes: expected a list of names, each once, without | and line breaks; label n is the n-th")
    schema = Schema(
        encoding=str(encoding),
        record=_record(raw.get("record"), problems),
        classes=tuple(names),
    )
    if len(schema.image.shape) != 3:
        problems.append("record.image: its shape is [channels, height, width]; of image files null where sizes differ")
    elif encoding == IMAGE and (schema.image.dtype != "uint8" or schema.image.shape[0] not in (1, 3, 4)):
        problems.append("record.image: of image files it is uint8, with 1, 3 or 4 channels")
    elif encoding != BINARY and set(schema.record) != {"image"}:
        problems.append(f"record: encoding {encoding} holds image alone; the labels stand in the lists")
    elif encoding in (BINARY, NPY) and any(None in one.shape for one in schema.record.values()):
        problems.append(
            f"record: encoding {encoding} has examples of one size; a shape with null is for encoding {IMAGE}"
        )
    return schema


def _record(value: Any, problems: list[str]) -> dict[str, ArrayField]:
    if isinstance(value, dict) and "image" in value:
        return {str(name): _field(str(name), field, problems) for name, field in value.items()}
    problems.append(f"record: found {type_name(value)}, expected at least image: {{dtype: uint8, shape: [3, 32, 32]}}")
    return {"image": ArrayField(dtype="uint8", shape=(1, 1, 1))}


def _field(name: str, value: Any, problems: list[str]) -> ArrayField:
    if isinstance(value, dict) and set(value) == {"dtype", "shape"} and isinstance(value["shape"], list):
        sizes, dtype = value["shape"], value["dtype"]
        if dtype in _DTYPES and all(size is None or (type(size) is int and size > 0) for size in sizes):
            return ArrayField(dtype=dtype, shape=tuple(sizes))
    problems.append(
        f"record.{name}: found {value!r}, expected {{dtype: …, shape: […]}} with a dtype of {', '.join(_DTYPES)}"
    )
    return ArrayField(dtype="uint8", shape=(1, 1, 1))
