"""SET="a=1 b.c=x": typed like the files, never shell text."""

from typing import Any

import pytest

from runner.contract.config import resolve, split_overrides
from runner.contract.errors import RunnerError

DEFAULT = {
    "learning_rate": 0.1,
    "batch_size": 64,
    "name": "net",
    "layers": [1, 2],
    "model": {"n_hidden": 3, "extra": {}},
    "blocks": [{"width": 1}],
    "anything": None,
    "flag": False,
}


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("learning_rate=1e-3", "learning_rate", 0.001),
        (" learning_rate = 2 ", "learning_rate", 2.0),
        ("batch_size=1e2", "batch_size", 100),
        ("name=007", "name", "007"),
        ("name=1e3", "name", "1e3"),
        ("name=a: b #c", "name", "a: b #c"),
        ("name=a=b", "name", "a=b"),
        ("name=", "name", ""),
        ("name='x y'", "name", "x y"),
        ('name="x\\ty"', "name", "x\ty"),
        ("name=null", "name", "null"),
        ("anything=$(id)", "anything", "$(id)"),
        ('anything=x"; touch /tmp/owned; "', "anything", 'x"; touch /tmp/owned; "'),
        ("anything=[1, {a: 2}]", "anything", (1, {"a": 2})),
        ("anything=", "anything", None),
        ("anything.a.b=1", "anything", {"a": {"b": 1}}),
        ("layers=[5]", "layers", (5,)),
        ("layers.1=7", "layers", (1, 7)),
        ("blocks.0.width=9", "blocks", ({"width": 9},)),
        ("model={n_hidden: 5}", "model", {"n_hidden": 5, "extra": {}}),
        ("model.extra.depth=2", "model", {"n_hidden": 3, "extra": {"depth": 2}}),
        ("flag=true", "flag", True),
        ("gpu=true", "gpu", True),
        ("dataset=007", "dataset", "007"),
        ("tag=12", "tag", "12"),
    ],
)
def test_a_setting_is_read_like_yaml(setting: str, key: str, value: Any) -> None:
    assert resolve(DEFAULT, {}, [setting])[key] == value


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("2", 2), ("0,1", "0,1"), ("GPU-1a-2b", "GPU-1a-2b")])
def test_the_forms_of_gpus(text: str, value: Any) -> None:
    assert resolve(DEFAULT, {}, [f"resources.gpus={text}"]).resources.gpus == value


def test_later_settings_win_and_see_earlier_ones() -> None:
    config = resolve(DEFAULT, {}, ["anything.a=1", "anything.b=2", "batch_size=1", "batch_size=2"])
    assert config.anything == {"a": 1, "b": 2}
    assert config.batch_size == 2


BAD = [
    ("learning_rate", "SET: 'learning_rate' has no '='; write key=value"),
    ("=3", "SET: '=3' has no key before its '='; write key=value"),
    (
        "rate=3",
        "SET: unknown key 'rate'; there are: seed, tag, dataset, data, init_from, gpu, learning_rate, batch_size, ",
    ),
    (
        "model.n_hiden=3",
        "SET: unknown key 'model.n_hiden'; did you mean 'n_hidden'? (default.yml has every key under 'model')",
    ),
    ("batch_size=big", "SET: batch_size is 'big' (a str); expected an int, like its default 64 in default.yml"),
    ("flag=1", "SET: flag is 1 (an int); expected a bool, like its default False in default.yml"),
    ("learning_rate=", "SET: learning_rate is null; expected a float, like its default 0.1 in default.yml"),
    ("learning_rate.a=3", "SET: learning_rate.a leads into 0.1, a float, which has no key 'a'"),
    ("layers.9=1", "SET: layers.9 leads into a list of 2, which has no index '9'"),
    ("layers.x=1", "SET: layers.x leads into a list of 2, which has no index 'x'"),
    ("layers.0=x", "SET: layers.0 is 'x' (a str); expected an int, as every element of layers"),
    (
        "layers=[1",
        "SET: layers:1:3: not YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'",
    ),
    ("anything=*x", "SET: anything:1:1: not YAML: found undefined alias 'x'"),
    ("resources.processes=0", "SET: resources.processes is 0; expected at least 1"),
    ("name=a\udcff", "SET: name is 'a\\udcff' (a str), which is not valid UTF-8"),
    ("model..n_hidden=1", "SET: 'model..n_hidden=1' has an empty name beside a dot; write section.key=value"),
    ("anything..b=1", "SET: 'anything..b=1' has an empty name beside a dot; write section.key=value"),
    (
        "batch_size_=[1, 2]",
        "SET: unknown key 'batch_size_'; 'batch_size' with an underscore at its end is a sweep; start it as one",
    ),
]


@pytest.mark.parametrize(("setting", "message"), BAD, ids=[ascii(setting) for setting, _ in BAD])
def test_a_bad_setting_is_said_in_words(setting: str, message: str) -> None:
    with pytest.raises(RunnerError) as caught:
        resolve(DEFAULT, {}, [setting])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_of_a_trainer_project_names_both_places() -> None:
    with pytest.raises(
        RunnerError,
        match=r"unknown key 'n_epoch'; did you mean 'n_epochs'\? \(default\.yml has every "
        r"key of the project, docs/trainer\.md those of the Trainer\)$",
    ):
        resolve(DEFAULT, {}, ["n_epoch=3"], inherited={"n_epochs": None})


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", []),
        ("  ", []),
        ("a=1 b=2", ["a=1", "b=2"]),
        ("a=1\n\tb=2 ", ["a=1", "b=2"]),
        ('tag="x y" b=2', ['tag="x y"', "b=2"]),
        ("'tag=x y' b=2", ["tag=x y", "b=2"]),
        ("c=[1, 2] d={a: ']', b: [1, 2]} e=3", ["c=[1, 2]", "d={a: ']', b: [1, 2]}", "e=3"]),
        ("tag=don't stop=1", ["tag=don't", "stop=1"]),
        ("a=$(id) b=x;y", ["a=$(id)", "b=x;y"]),
        ("tag=x[0 b=1", ["tag=x[0", "b=1"]),
        ("lr", ["lr"]),
        ("a==b c=d=e", ["a==b", "c=d=e"]),
    ],
)
def test_settings_are_split_at_spaces_outside_values(text: str, settings: list[str]) -> None:
    assert split_overrides(text) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('b=1 a="x', "SET: 'a=\"x' has no closing \" for what it opens; add it"),
        ("a=[1, 2 b=3", "SET: 'a=[1, 2 b=3' has no closing ] for what it opens; add it"),
        ("a={x: [1}", "SET: 'a={x: [1}' has no closing ] for what it opens; add it"),
    ],
)
def test_what_is_never_closed_is_named(text: str, message: str) -> None:
    with pytest.raises(RunnerError) as caught:
        split_overrides(text)
    assert str(caught.value) == message
