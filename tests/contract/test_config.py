"""Defaults, an experiment and overrides become one config; everything wrong is said at once, in words."""

import copy
import json
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from runner.contract.config import (
    BUILTIN,
    Config,
    differences,
    identity,
    load_config,
    python_files,
    resolve,
    snapshot,
    unread,
    with_values,
)
from runner.contract.errors import RunnerError
from runner.contract.jsonio import pretty_json
from runner.contract.yaml12 import dump_yaml, load_mapping

DEFAULT = load_mapping(
    """\
learning_rate: 1e-3
batch_size: 64
n_iterations: 100
name: net
flag: true
loss_weights: [1.0, 2.0]
layers: [1, 2]
model:
  file: model.py
  n_hidden: 3
  extra: {}
anything: null
blocks: [{width: 1}, {width: 2}]
""",
    name="configs/default.yml",
)


def resolved(experiment: str = "{}", *overrides: str) -> Config:
    return resolve(DEFAULT, load_mapping(experiment, name="configs/toy.yml"), overrides, tag="toy", dataset="cifar10")


def problem(experiment: str = "{}", *overrides: str) -> str:
    with pytest.raises(RunnerError) as caught:
        resolved(experiment, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_builtin_keys_defaults_experiment_and_overrides_in_that_order() -> None:
    config = resolved("batch_size: 32\nmodel: {n_hidden: 5}\nseed: 7\n", "batch_size=8", "model.extra.depth=2")
    assert config.batch_size == 8
    assert config.learning_rate == 0.001
    assert config.model == {"file": "model.py", "n_hidden": 5, "extra": {"depth": 2}}
    assert (config.seed, config.tag, config.dataset, config.data, config.gpu) == (7, "toy", "cifar10", "full", "auto")
    assert list(config)[:7] == ["seed", "tag", "dataset", "data", "init_from", "gpu", "learning_rate"]
    assert list(config)[-1] == "resources"
    assert snapshot(config)["resources"] == {
        "gpus": "auto",
        "threads": None,
        "memory_gib": None,
        "cpus": None,
        "shm_gib": None,
        "tmp_gib": None,
        "grace_s": 30.0,
        "timeout_s": None,
        "env": [],
        "mounts": [],
        "processes": 1,
    }


def test_every_builtin_default_fits_its_own_type_and_has_a_meaning() -> None:
    for dotted, builtin in BUILTIN.items():
        assert type(builtin.default) in builtin.types, dotted
        assert builtin.meaning


def test_the_defaults_and_the_experiment_are_left_as_they_were() -> None:
    before = copy.deepcopy(DEFAULT)
    experiment = {"blocks": [{"width": 4}], "model": {"extra": {"a": [1]}}}
    resolve(DEFAULT, experiment, ["blocks.0.width=9", "model.extra.a.0=5", "model.n_hidden=1"])
    assert before == DEFAULT
    assert experiment == {"blocks": [{"width": 4}], "model": {"extra": {"a": [1]}}}


@pytest.mark.parametrize(
    ("experiment", "key", "value"),
    [
        ("learning_rate: 1", "learning_rate", 1.0),
        ("n_iterations: 1e4", "n_iterations", 10_000),
        ("n_iterations: 64.0", "n_iterations", 64),
        ("loss_weights: [1, 2, 3]", "loss_weights", (1.0, 2.0, 3.0)),
        ("loss_weights: []", "loss_weights", ()),
        ("layers: [1e1]", "layers", (10,)),
        ("anything: {a: [x]}", "anything", {"a": ["x"]}),
        ("anything: on", "anything", "on"),
        ("name: '007'", "name", "007"),
        ("gpu: false", "gpu", False),
        ("dataset: null", "dataset", None),
    ],
)
def test_values_take_the_type_of_their_default(experiment: str, key: str, value: Any) -> None:
    found = resolved(experiment)[key]
    assert found == value
    assert type(found) is type(value) or isinstance(found, Config)


def test_identity_does_not_depend_on_how_a_number_is_written_nor_on_resources_and_tag() -> None:
    config = resolved("learning_rate: 1\nn_iterations: 1e3")
    assert identity(config) == identity(resolved("n_iterations: 1000\nlearning_rate: 1.0"))
    assert identity(config) == identity(with_values(config, {"tag": "other", "resources.gpus": 4}))
    assert identity(config) == identity(snapshot(config))
    assert identity(config) != identity(with_values(config, {"seed": 1}))
    assert identity(config) != identity(with_values(config, {"learning_rate": 2.0}))
    assert len(identity(config)) == 64


LIKE = "like its default"
BAD = [
    (
        "lerning_rate: 1",
        "configs/toy.yml:1: unknown key 'lerning_rate'; did you mean 'learning_rate'? (configs/default.yml has every key)",
    ),
    (
        "model:\n  n_hiden: 3",
        "configs/toy.yml:2: unknown key 'model.n_hiden'; did you mean 'n_hidden'? "
        "(configs/default.yml:8 has every key under 'model')",
    ),
    (
        "resources: {qqq: 1}",
        "configs/toy.yml:1: unknown key 'resources.qqq'; there are: gpus, threads, memory_gib, cpus, shm_gib, tmp_gib, "
        "grace_s, timeout_s, env, mounts, processes (every project has these)",
    ),
    (
        "batch_size: big",
        f"configs/toy.yml:1: batch_size is 'big' (a str); expected an int, {LIKE} 64 in configs/default.yml:2",
    ),
    (
        "batch_size: 0.5",
        f"configs/toy.yml:1: batch_size is 0.5 (a float); expected an int, {LIKE} 64 in configs/default.yml:2",
    ),
    (
        "batch_size: true",
        f"configs/toy.yml:1: batch_size is True (a bool); expected an int, {LIKE} 64 in configs/default.yml:2",
    ),
    ("\nflag: 1", f"configs/toy.yml:2: flag is 1 (an int); expected a bool, {LIKE} True in configs/default.yml:5"),
    ("name: 3", f"configs/toy.yml:1: name is 3 (an int); expected a str, {LIKE} 'net' in configs/default.yml:4"),
    ("layers: 3", f"configs/toy.yml:1: layers is 3 (an int); expected a list, {LIKE} [1, 2] in configs/default.yml:7"),
    ("layers: [1, x]", "configs/toy.yml:1: layers.1 is 'x' (a str); expected an int, as every element of layers"),
    (
        "layers: {a: 1}",
        f"configs/toy.yml:1: layers is {{'a': 1}} (a mapping); expected a list, {LIKE} [1, 2] in configs/default.yml:7",
    ),
    ("model: null", "configs/toy.yml:1: model is null; expected a mapping"),
    (
        "learning_rate: .inf",
        "configs/toy.yml:1: learning_rate is inf, which JSON cannot hold; write null or a large number",
    ),
    ("anything: [.nan]", "configs/toy.yml:1: anything.0 is nan, which JSON cannot hold; write null or a large number"),
    ("data: ful", "configs/toy.yml:1: data is 'ful'; expected full or toy"),
    ("gpu: on", "configs/toy.yml:1: gpu is 'on'; expected auto, true or false"),
    ("seed: -1", "configs/toy.yml:1: seed is -1; expected at least 0"),
    (
        "resources: {memory_gib: lots}",
        "configs/toy.yml:1: resources.memory_gib is 'lots' (a str); expected a float or null (hard memory limit, GiB; null: none)",
    ),
    (
        "resources: {env: [1]}",
        "configs/toy.yml:1: resources.env.0 is 1 (an int); expected a str, as every element of resources.env",
    ),
    (
        "batch_size_: [1, 2]",
        "configs/toy.yml:1: unknown key 'batch_size_'; 'batch_size' with an underscore at its end is a sweep; start it as one",
    ),
]


@pytest.mark.parametrize(("experiment", "message"), BAD, ids=[text[:24] for text, _ in BAD])
def test_a_bad_experiment_is_said_in_words(experiment: str, message: str) -> None:
    found = problem(experiment)
    assert found == message or (message.endswith("mapping") and found.startswith(message))


def test_all_problems_are_reported_together() -> None:
    found = problem("lerning_rate: 1\nbatch_size: x\nflag: 1", "layers=3", "lr")
    assert [part.split(": ")[0] for part in found.split("; ") if part.startswith(("configs/toy", "SET"))] == [
        "configs/toy.yml:1",
        "configs/toy.yml:2",
        "configs/toy.yml:3",
        "SET",
        "SET",
    ]


def test_plain_mappings_are_named_in_messages_too() -> None:
    with pytest.raises(
        RunnerError, match=r"^the experiment's config: unknown key 'b'; there are: .*\(default\.yml has"
    ):
        resolve({"alpha": 1}, {"b": 2})


BAD_DEFAULT = [
    ("items: 1", "d.yml:1: items cannot be a key: config.items is a method; choose another name"),
    ("a: {to_dict: 1}", "d.yml:1: a.to_dict cannot be a key: config.to_dict is a method; choose another name"),
    ("lr_: [1]", "d.yml:1: lr_ ends with an underscore, which makes a sweep; sweeps belong in experiments"),
    ("seed: x", "d.yml:1: seed is 'x' (a str); expected an int (what every random number of the run comes from)"),
    ("'': 1", "d.yml:1: an empty key; give it a name"),
    ("max_norm: .inf", "d.yml:1: max_norm is inf, which JSON cannot hold; write null or a large number"),
    ("resources: 3", "d.yml:1: resources is 3 (an int); expected a mapping"),
]


@pytest.mark.parametrize(("default", "message"), BAD_DEFAULT, ids=[text for text, _ in BAD_DEFAULT])
def test_a_bad_default_is_said_in_words(default: str, message: str) -> None:
    with pytest.raises(RunnerError) as caught:
        resolve(load_mapping(default, name="d.yml"), {})
    assert str(caught.value).startswith(message)


def test_a_default_may_change_a_builtin_default_and_inherit_keys() -> None:
    default = load_mapping("seed: 5\nresources: {gpus: 2}\nn_epochs: 3\n", name="d.yml")
    config = resolve(default, {"weight_decay": 1}, inherited={"n_epochs": None, "weight_decay": 0.0})
    assert (config.seed, config.resources.gpus, config.resources.processes) == (5, 2, 1)
    assert (config.n_epochs, config.weight_decay) == (3, 1.0)
    assert isinstance(config.weight_decay, float)


def test_a_config_is_a_frozen_mapping_with_attributes() -> None:
    config = resolved()
    assert config.model.n_hidden == config["model"]["n_hidden"] == 3
    assert [block.width for block in config.blocks] == [1, 2]
    assert config.layers == (1, 2)
    assert config.get("nothing", 5) == 5
    assert "layers" in config and "nothing" not in config
    assert dict(**config.model) == {"file": "model.py", "n_hidden": 3, "extra": {}}
    assert config.to_dict() == snapshot(config) == config
    assert json.loads(json.dumps(config.to_dict())) == config
    assert "learning_rate" in dir(config)
    assert repr(config.model) == "Config({'file': 'model.py', 'n_hidden': 3, 'extra': {}})"
    assert hash(config) == hash(resolved())
    config.to_dict()["model"]["n_hidden"] = 99
    assert config.model.n_hidden == 3


def test_wrong_attributes_and_assignments_say_what_to_do() -> None:
    config = resolved()
    with pytest.raises(AttributeError, match=r"^the config has no key 'lerning_rate'; did you mean 'learning_rate'\?$"):
        config.lerning_rate  # noqa: B018
    with pytest.raises(AttributeError, match=r"^the config has no key 'zzz'; there are: file, n_hidden, extra$"):
        config.model.zzz  # noqa: B018
    with pytest.raises(
        AttributeError, match=r"^the config is frozen: 'batch_size' cannot be set; keep what changes in"
    ):
        config.batch_size = 3
    with pytest.raises(AttributeError, match=r"^the config is frozen: 'batch_size' cannot be deleted"):
        del config.batch_size
    with pytest.raises(TypeError):
        config["batch_size"] = 3  # type: ignore[index]
    assert getattr(config, "nothing", 5) == 5
    assert not hasattr(config, "nothing")


def test_configs_are_copied_and_pickled() -> None:
    config = resolved()
    assert copy.copy(config) is config
    assert copy.deepcopy({"config": config})["config"] == config
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        loaded = pickle.loads(pickle.dumps(config, protocol))
        assert loaded == config
        assert loaded.blocks[1].width == 2
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_batch_size, (config,)) == 64


def read_batch_size(config: Config) -> int:
    return int(config.batch_size)


LEAVES = ["learning_rate", "batch_size", "n_iterations", "name", "flag", "loss_weights", "layers", "model.file"]
LEAVES += ["model.n_hidden", "model.extra", "anything", "blocks.0.width", "blocks.1.width"]


def test_keys_that_nothing_read_are_named() -> None:
    config = resolved()
    assert unread(config) == LEAVES
    repr(config), config == resolved(), "name" in config, len(config), list(config), identity(config), snapshot(config)
    assert config.model and config.blocks
    assert unread(config) == LEAVES
    config.batch_size, config["flag"], config.get("name"), config.model.n_hidden
    for block in config.blocks[:1]:
        block.width  # noqa: B018
    left = ["learning_rate", "n_iterations", "loss_weights", "layers", "model.file", "model.extra", "anything"]
    assert unread(config) == [*left, "blocks.1.width"]
    dict(**config.model)
    assert unread(config.model) == []
    assert unread(config) == ["learning_rate", "n_iterations", "loss_weights", "layers", "anything", "blocks.1.width"]
    config.to_dict()
    assert unread(config) == []


def test_to_dict_of_a_part_counts_for_that_part() -> None:
    config = resolved()
    config.model.to_dict()
    assert unread(config) == [name for name in LEAVES if not name.startswith("model.")]


def test_what_a_forked_worker_reads_counts() -> None:
    config = resolved()
    child = os.fork()
    if child == 0:
        config.learning_rate, config.blocks[1].width
        os._exit(0)
    os.waitpid(child, 0)
    assert unread(config) == [name for name in LEAVES if name not in ("learning_rate", "blocks.1.width")]


def test_the_record_is_read_back_as_it_was(tmp_path: Path) -> None:
    config = resolved("learning_rate: 1")
    path = tmp_path / "config.json"
    path.write_bytes(pretty_json(snapshot(config)))
    assert load_config(path) == config
    assert identity(load_config(path)) == identity(config)
    again = resolve(DEFAULT, load_mapping(dump_yaml(snapshot(config)), name="config.yml"))
    assert again == config


@pytest.mark.parametrize(("content", "message"), [("[1]", "holds a list; expected a config"), ("{", "not JSON")])
def test_a_bad_record_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(RunnerError, match=rf"config\.json: {message}"):
        load_config(path)


def test_python_files_are_listed_once_and_stay_opaque() -> None:
    config = resolved("anything: [{file: data.py}, {file: model.py}, {file: weights.pt}]")
    assert python_files(config) == ["model.py", "data.py"]


def test_with_values_gives_another_config() -> None:
    config = resolved()
    other = with_values(config, {"gpu": True, "resources.threads": 4})
    assert (other.gpu, other.resources.threads) == (True, 4)
    assert (config.gpu, config.resources.threads) == ("auto", None)


def test_differences_are_named_by_key_and_tell_one_from_true() -> None:
    before = {"a": 1, "model": {"depth": 2, "wide": 1}, "gone": None}
    after = {"a": 1, "model": {"depth": 3, "wide": True}, "new": [1]}
    assert list(differences(before, after)) == [("model.depth", 2, 3), ("model.wide", 1, True), ("new", None, [1])]
