"""Keys with one trailing underscore become runs."""

from typing import Any

import pytest

from runner.contract.config import resolve
from runner.contract.errors import RunnerError
from runner.contract.sweep import expand, is_sweep
from runner.contract.yaml12 import load_mapping, load_yaml


def points(text: str) -> list[tuple[int, dict[str, Any], dict[str, Any]]]:
    return [(point.number, dict(point.values), dict(point.config)) for point in expand(load_yaml(text))]


def test_every_combination_in_the_order_of_the_file_the_first_key_slowest() -> None:
    found = points("learning_rate_: [0.1, 0.01]\nweights: [1, 2]\nmodel: {n_hidden_: [64, 128], depth: 2}\n")
    assert [(number, values) for number, values, _ in found] == [
        (1, {"learning_rate": 0.1, "model.n_hidden": 64}),
        (2, {"learning_rate": 0.1, "model.n_hidden": 128}),
        (3, {"learning_rate": 0.01, "model.n_hidden": 64}),
        (4, {"learning_rate": 0.01, "model.n_hidden": 128}),
    ]
    assert found[1][2] == {"learning_rate": 0.1, "weights": [1, 2], "model": {"n_hidden": 128, "depth": 2}}
    assert [list(config) for _, _, config in found] == [["learning_rate", "weights", "model"]] * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1", [(1, {}, {"a": 1})]),
        ("{}", [(1, {}, {})]),
        ("a_: [32]", [(1, {"a": 32}, {"a": 32})]),
        ("_a_: [1]", [(1, {"_a": 1}, {"_a": 1})]),
        ("__a__: [1]", [(1, {"__a_": 1}, {"__a_": 1})]),
        ("_a: [1, 2]", [(1, {}, {"_a": [1, 2]})]),
        ("a_: [[1, 2], []]", [(1, {"a": [1, 2]}, {"a": [1, 2]}), (2, {"a": []}, {"a": []})]),
        ("a_: [null]", [(1, {"a": None}, {"a": None})]),
        (
            "b: [{w_: [1, 2]}, {w: 3}]",
            [(1, {"b.0.w": 1}, {"b": [{"w": 1}, {"w": 3}]}), (2, {"b.0.w": 2}, {"b": [{"w": 2}, {"w": 3}]})],
        ),
        (
            "o_: [{n: s, m_: [1, 2]}, {n: t}]",
            [
                (1, {"o": {"n": "s", "m": 1}, "o.m": 1}, {"o": {"n": "s", "m": 1}}),
                (2, {"o": {"n": "s", "m": 2}, "o.m": 2}, {"o": {"n": "s", "m": 2}}),
                (3, {"o": {"n": "t"}}, {"o": {"n": "t"}}),
            ],
        ),
    ],
)
def test_where_and_how_keys_are_swept(text: str, expected: Any) -> None:
    assert points(text) == expected


@pytest.mark.parametrize(
    ("text", "swept"),
    [
        ("a: 1", False),
        ("a: [1, {b: [{c_: 1}]}]", True),
        ("a_: [1]", True),
        ("_a: [1]", False),
        ("[1]", False),
        ("", False),
    ],
)
def test_is_sweep_looks_everywhere(text: str, swept: bool) -> None:
    assert is_sweep(load_yaml(text)) is swept


LIST = "a key that ends with an underscore is swept and takes a list of values"
BAD = [
    ("lr_: 3", f"s.yml:1: lr_ is 3 (an int); {LIST}: write lr_: [3], or lr without the underscore"),
    ("lr_:", f"s.yml:1: lr_ is null; {LIST}: write lr_: [1, 2], or lr without the underscore"),
    (
        "m:\n  lr_: {a: 1}",
        f"s.yml:2: m.lr_ is {{'a': 1}} (a mapping); {LIST}: write lr_: [1, 2], or lr without the underscore",
    ),
    ("b: [{\n  w_: x}]", f"s.yml:2: b.0.w_ is 'x' (a str); {LIST}: write w_: [x], or w without the underscore"),
    ("b_: []", "s.yml:1: b_ is an empty list, which makes no run at all; expected at least one value"),
    ("lr: 1\nlr_: [1]", "s.yml:2: lr_ sweeps 'lr', which is also set plainly; keep one of the two"),
    ("_: [1]", "s.yml:1: '_' is an underscore and no name; expected the name of the key to sweep before it"),
    (
        "\n".join(f"k{number}_: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" for number in range(6)),
        "s.yml: makes 1,000,000 points; expected at most 100,000; sweep fewer keys or values",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text[:12] for text, _ in BAD])
def test_a_bad_sweep_is_said_in_words(text: str, message: str) -> None:
    with pytest.raises(RunnerError) as caught:
        expand(load_mapping(text, name="s.yml"))
    assert str(caught.value) == message


def test_all_problems_of_a_sweep_are_reported_together() -> None:
    with pytest.raises(RunnerError) as caught:
        expand({"a_": 1, "b_": []})
    assert [part for part in str(caught.value).split("; ") if part.startswith("the sweep's config")] == [
        "the sweep's config: a_ is 1 (an int)",
        "the sweep's config: b_ is an empty list, which makes no run at all",
    ]


def test_a_point_resolves_and_its_messages_still_name_the_line() -> None:
    document = load_mapping("tag: x\nmodel:\n  n_hidden_: [64, big]\n", name="s.yml")
    first, second = expand(document)
    default = {"model": {"n_hidden": 3}}
    assert resolve(default, first.config).model.n_hidden == 64
    with pytest.raises(RunnerError, match=r"^s\.yml:3: model\.n_hidden is 'big' \(a str\); expected an int"):
        resolve(default, second.config)
    assert document == {"tag": "x", "model": {"n_hidden_": [64, "big"]}}
