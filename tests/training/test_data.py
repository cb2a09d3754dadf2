"""Data come in an order, and with a noise, that depend on (seed, epoch, batch) alone."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tiny import NoisyDataset
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)
from torch.utils.data._utils.collate import default_collate_fn_map

from runner.contract.errors import RunnerError
from runner.training import ArrayDataset, BatchLoader
from runner.training.aside import Aside
from runner.training.data import Feed, count_examples, make_feed
from runner.training.data.batches import stacked
from runner.training.order import IndexOrder, Shard
from runner.training.seeding import derive_seed, restore_rng, rng_state, seed_generators
from runner.training.state import state_sha256
from runner.training.transfer import Prefetcher, to_device


def feed_of(loader: Any, **options: Any) -> Feed:
    defaults: dict[str, Any] = {"how": "auto", "seed": 3, "aside": Aside(), "endless": True}
    return make_feed(loader, **{**defaults, **options})


def taken(feed: Feed, n: int, *, start: tuple[int, int] = (0, 0)) -> list[torch.Tensor]:
    """The x of n batches from a position."""
    feed.start(*start)
    batches = [feed.next().batch["x"] for _ in range(n)]
    feed.close()
    return batches


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def dataset() -> NoisyDataset:
    return NoisyDataset(21, 1)


def test_the_same_for_any_number_of_workers(dataset: NoisyDataset) -> None:
    expected = taken(feed_of(DataLoader(dataset, 4, shuffle=True)), 13)
    for n_workers in (1, 2):
        assert same(taken(feed_of(DataLoader(dataset, 4, shuffle=True, num_workers=n_workers)), 13), expected)


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("position", [(0, 3), (1, 0), (1, 5), (2, 1)])
def test_from_any_position(dataset: NoisyDataset, n_workers: int, position: tuple[int, int]) -> None:
    expected = taken(feed_of(DataLoader(dataset, 4, shuffle=True)), 18)
    skipped = position[0] * 6 + position[1]
    feed = feed_of(DataLoader(dataset, 4, shuffle=True, num_workers=n_workers))
    assert same(taken(feed, 3, start=position), expected[skipped : skipped + 3])


def test_every_example_once_an_epoch_in_another_order(dataset: NoisyDataset) -> None:
    order = IndexOrder(21, 4, shuffle=True, drop_last=False, seed=3, shard=Shard())
    epochs = [torch.cat([order.request(epoch, batch).indices for batch in range(6)]).tolist() for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(21)) and epochs[0] != epochs[1]
    assert [order.request(0, batch).last for batch in range(6)] == [False] * 5 + [True]


@pytest.mark.parametrize("n", [1, 2, 7, 16, 17, 19, 23, 24])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_exactly(n: int, world: int) -> None:
    whole = IndexOrder(n, 4 * world, shuffle=True, drop_last=False, seed=3, shard=Shard())
    shards = [
        IndexOrder(n, 4, shuffle=True, drop_last=False, seed=3, shard=Shard(rank, world)) for rank in range(world)
    ]
    assert {shard.n_batches(0) for shard in shards} == {whole.n_batches(0)}
    for batch in range(whole.n_batches(0)):
        requests = [shard.request(0, batch) for shard in shards]
        counted = [index for request in requests for index in request.indices.tolist()[: request.n_examples]]
        assert counted == whole.request(0, batch).indices.tolist()
        assert all(len(request.indices) > 0 for request in requests)
        assert len({request.seed for request in requests}) == world
        assert {request.n_examples_of_all for request in requests} == {len(counted)}


SAMPLERS = {
    "weighted": lambda data: {"sampler": WeightedRandomSampler([1.0] * 20 + [9.0], 12), "batch_size": 4},
    "subset": lambda data: {"sampler": SubsetRandomSampler(range(9)), "batch_size": 4},
    "with replacement": lambda data: {
        "sampler": RandomSampler(data, replacement=True, num_samples=30),
        "batch_size": 4,
    },
    "a list": lambda data: {"sampler": [3, 1, 2], "batch_size": 2},
    "batches": lambda data: {"batch_sampler": BatchSampler(SequentialSampler(data), 5, True)},
    "global randomness": lambda data: {"sampler": _Shuffled(), "batch_size": 4},
}


class _Shuffled:
    """A sampler that draws from python's own generator."""

    def __iter__(self) -> Iterator[int]:
        return iter(random.sample(range(21), 8))

    def __len__(self) -> int:
        return 8


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_of_a_projects_own(dataset: NoisyDataset, name: str) -> None:
    def loader(n_workers: int = 0) -> Any:
        return DataLoader(dataset, num_workers=n_workers, **SAMPLERS[name](dataset))

    n = len(loader())
    random.seed(0)
    expected = taken(feed_of(loader()), 3 * n)
    random.seed(1)
    assert same(taken(feed_of(loader(2)), 3 * n), expected)
    assert same(taken(feed_of(loader()), n, start=(2, 0)), expected[2 * n :])


def test_a_sampler_without_a_length_and_one_for_several_processes_are_refused(dataset: NoisyDataset) -> None:
    class Endless:
        def __iter__(self) -> Iterator[int]:
            return iter(int, 1)

    with pytest.raises(RunnerError, match="Endless: a sampler without a length may never end; give it __len__"):
        feed_of(DataLoader(dataset, 2, sampler=Endless()))
    with pytest.raises(
        RunnerError, match="SubsetRandomSampler: a sampler of its own cannot be dealt to 2 processes exactly"
    ):
        feed_of(DataLoader(dataset, 2, sampler=SubsetRandomSampler([1, 2])), shard=Shard(0, 2))


class _Stream(IterableDataset[dict[str, torch.Tensor]]):
    """Fourteen examples, each with noise."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for number in range(14):
            yield {"x": torch.rand(2) + number + random.random()}


def test_a_stream_is_exact_too() -> None:
    expected = taken(feed_of(DataLoader(_Stream(), 4)), 11)
    assert len({str(batch.tolist()) for batch in expected}) == 11
    assert same(taken(feed_of(DataLoader(_Stream(), 4)), 4, start=(1, 3)), expected[7:])
    feed = feed_of(DataLoader(_Stream(), 4))
    feed.start(0, 0)
    assert [(fetched.n_examples, fetched.last) for fetched in (feed.next() for _ in range(4))] == [(4, False)] * 3 + [
        (2, True)
    ]
    with pytest.raises(RunnerError, match="_Stream: a stream cannot be dealt to 2 processes exactly"):
        feed_of(DataLoader(_Stream(), 4), shard=Shard(0, 2))


def test_a_list_of_batches_will_do() -> None:
    batches = [{"x": torch.full((2,), float(n))} for n in range(3)]
    assert [float(x[0]) for x in taken(feed_of(batches), 7)] == [0, 1, 2, 0, 1, 2, 0]


class _Whole(NoisyDataset):
    """Gives whole batches, with noise."""

    def get_batch(self, indices: torch.Tensor) -> dict[str, Any]:
        return {"x": self.x[indices] + torch.randn(len(indices), 1), "label": self.label[indices]}


def test_whole_batches() -> None:
    data = _Whole(21, 1)
    expected = taken(feed_of(BatchLoader(data, 4, shuffle=True)), 9)
    assert same(taken(feed_of(DataLoader(data, 4, shuffle=True)), 9), expected)
    assert same(taken(feed_of(DataLoader(data, 4, shuffle=True, num_workers=2)), 9), expected)
    assert not same(taken(feed_of(DataLoader(data, 4, shuffle=True), how="samples"), 9), expected)


def test_what_gives_no_batches_is_refused(dataset: NoisyDataset) -> None:
    with pytest.raises(RunnerError, match="loader: batches, but NoisyDataset has no get_batch"):
        feed_of(DataLoader(dataset, 4), how="batches")
    with pytest.raises(RunnerError, match="BatchLoader: NoisyDataset has no get_batch"):
        BatchLoader(dataset, 4)
    with pytest.raises(RunnerError, match="no batch in it"):
        feed_of(DataLoader(NoisyDataset(3, 1), 4, drop_last=True))


class _Pair(NamedTuple):
    x: torch.Tensor
    y: int


@pytest.mark.parametrize(
    "examples",
    [
        [{"x": torch.ones(2, 3) * i, "y": torch.tensor(i), "n": i, "t": "abc"[i], "f": i / 3} for i in range(3)],
        [(torch.ones(2) * i, i, {"z": torch.tensor(i)}) for i in range(3)],
        [torch.tensor([i, 2]) for i in range(3)],
        [defaultdict(int, x=torch.ones(1))] * 2,
        [_Pair(torch.ones(2), 5)] * 2,
        [[torch.ones(2), 5]] * 2,
        [(np.float32(1), np.ones(3))] * 2,
        [5, 6],
    ],
)
def test_examples_are_stacked_as_torch_does(examples: list[Any]) -> None:
    ours, theirs = stacked(examples), default_collate(examples)
    assert type(ours) is type(theirs)
    assert state_sha256(ours) == state_sha256(theirs)


def test_whoever_tells_torch_how_to_collate_is_heard(dataset: NoisyDataset) -> None:
    def doubled(batch: Any, *, collate_fn_map: Any = None) -> torch.Tensor:
        return torch.stack(batch) * 2

    own = default_collate_fn_map[torch.Tensor]
    default_collate_fn_map[torch.Tensor] = doubled
    try:
        (told,) = taken(feed_of(DataLoader(dataset, 3)), 1)
    finally:
        default_collate_fn_map[torch.Tensor] = own
    (plain,) = taken(feed_of(DataLoader(dataset, 3)), 1)
    assert torch.equal(told, 2 * plain) and not torch.equal(told, plain)


@pytest.mark.parametrize(
    "examples",
    [
        [{"x": torch.ones(2)}, {"x": torch.ones(3)}],
        [{"x": torch.ones(2)}, {"y": torch.ones(2)}],
        [(torch.ones(2),), (torch.ones(2), 1)],
        [{"x": torch.ones(2).to_sparse()}] * 2,
        [(object(),)] * 2,
    ],
)
def test_what_torch_does_not_stack_is_refused_as_torch_does(examples: list[Any]) -> None:
    with pytest.raises(Exception) as theirs:
        default_collate(examples)
    with pytest.raises(theirs.type) as ours:
        stacked(examples)
    assert str(ours.value) == str(theirs.value)


def test_array_dataset(tmp_path: Any) -> None:
    pixels = np.memmap(tmp_path / "x", dtype=np.float32, mode="w+", shape=(10, 2))
    pixels[:] = np.arange(20).reshape(10, 2)
    data = ArrayDataset(x=pixels, label=torch.arange(10))
    assert data.get_batch(torch.tensor([3, 1]))["x"].tolist() == [[6, 7], [2, 3]]
    assert data[4]["label"] == 4 and len(data) == 10 and not data.draws_random
    flipped = ArrayDataset(x=pixels, transform=lambda batch: {"x": -batch["x"]})
    assert flipped[0]["x"].tolist() == [0, -1] and flipped.draws_random
    with pytest.raises(RunnerError, match="arrays of equal length expected"):
        ArrayDataset(x=pixels, label=torch.arange(9))


class _Uses(Dataset[dict[str, torch.Tensor]]):
    """Draws from the named generators, from example 5 on."""

    def __init__(self, which: str) -> None:
        self.which = which

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        value = torch.zeros(3)
        if index >= 5:
            value[0] = torch.rand(()) if "t" in self.which else 0
            value[1] = random.gauss(0, 1) if "p" in self.which else 0
            value[2] = float(np.random.randn()) if "n" in self.which else 0
        if "s" in self.which:
            value[0] = torch.randn(1)
        if "i" in self.which:
            value[0] = torch.initial_seed() % 1000
        if "f" in self.which:
            with torch.random.fork_rng():
                value[0] = torch.rand(())
            python, numpy = random.getstate(), np.random.get_state()
            value[1], value[2] = random.random(), float(np.random.rand())
            random.setstate(python)
            np.random.set_state(numpy)
        return {"x": value}


@pytest.mark.parametrize("which", ["", "t", "p", "n", "s", "i", "f", "tpn"])
def test_reading_leaves_the_trainings_generators_alone(which: str) -> None:
    """And reads the same as a worker does."""
    seed_generators(11)
    np.random.bytes(8)
    before = rng_state(torch.device("cpu"))
    read = taken(feed_of(DataLoader(_Uses(which), 3)), 7)
    after = rng_state(torch.device("cpu"))
    assert state_sha256(after) == state_sha256(before)
    assert same(read, taken(feed_of(DataLoader(_Uses(which), 3, num_workers=1)), 7))


@pytest.mark.parametrize("which", ["", "t", "s", "i", "f", "p", "n"])
def test_a_spare_gaussian_of_the_training_is_not_read(which: str) -> None:
    """torch keeps the second of two gaussians that it makes together; taking it moves no position."""
    torch.default_generator.manual_seed(3)
    torch.randn(1)
    state = torch.default_generator.get_state()
    (read,) = taken(feed_of(DataLoader(_Uses(which), 12)), 1)
    assert torch.equal(torch.default_generator.get_state(), state)
    assert torch.equal(read, taken(feed_of(DataLoader(_Uses(which), 12, num_workers=1)), 1)[0])


@pytest.mark.parametrize("which", ["t", "p", "n", "tpn"])
def test_a_read_that_fails_leaves_the_generators_as_they_were(which: str) -> None:
    class Failing(_Uses):
        fails = True

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            example = super().__getitem__(index)
            if index == 11 and self.fails:
                raise OSError("not now")
            return example

    dataset = Failing(which)
    feed = feed_of(DataLoader(dataset, 12))
    feed.start(0, 0)
    seed_generators(11)
    np.random.bytes(8)
    before = rng_state(torch.device("cpu"))
    with pytest.raises(OSError, match="not now"):
        feed.next()
    assert state_sha256(rng_state(torch.device("cpu"))) == state_sha256(before)
    dataset.fails = False
    (expected,) = taken(feed_of(DataLoader(_Uses(which), 12)), 1)
    assert torch.equal(feed.next().batch["x"], expected)


def test_an_exchanged_generator_of_numpys_is_not_overlooked() -> None:
    aside, own = Aside(), np.random.get_bit_generator()
    dataset = DataLoader(_Uses("n"), 12)
    expected = taken(feed_of(dataset), 1)
    np.random.set_bit_generator(np.random.MT19937(5))
    try:
        assert same(taken(feed_of(dataset, aside=aside), 1), expected)
    finally:
        np.random.set_bit_generator(own)


@pytest.mark.parametrize("which", ["tpn", "t", "s", ""])
def test_what_the_training_draws_does_not_depend_on_the_workers(which: str) -> None:
    drawn = []
    for n_workers in (0, 2):
        seed_generators(11)
        feed = feed_of(DataLoader(_Uses(which), 3, num_workers=n_workers))
        feed.start(0, 0)
        numbers = []
        for _ in range(6):
            feed.next()
            numbers.append((random.gauss(0, 1), float(np.random.randn()), float(torch.randn(()))))
        feed.close()
        drawn.append(numbers)
    assert drawn[0] == drawn[1]


def test_generators_go_to_a_checkpoint_and_back() -> None:
    seed_generators(5)
    random.gauss(0, 1), np.random.randn()
    state = rng_state(torch.device("cpu"))
    expected = random.gauss(0, 1), np.random.randn(), torch.rand(3).tolist()
    restore_rng(state, torch.device("cpu"))
    assert (random.gauss(0, 1), np.random.randn(), torch.rand(3).tolist()) == expected


def test_seeds_depend_on_every_part_and_their_order() -> None:
    seeds = {derive_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seeds) == 8000 and all(0 <= seed < 1 << 63 for seed in seeds)


def test_set_epoch_is_told() -> None:
    class Epochs(Dataset[dict[str, torch.Tensor]]):
        epoch = -1

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"x": torch.tensor([self.epoch])}

    for n_workers in (0, 2):
        feed = feed_of(DataLoader(Epochs(), 2, num_workers=n_workers))
        assert [int(x[0]) for x in taken(feed, 5, start=(1, 1))] == [1, 2, 2, 3, 3]


def test_a_nested_batch_goes_to_the_device_as_it_is() -> None:
    class Pair(NamedTuple):
        first: Any
        second: Any

    lists: defaultdict[str, list[Any]] = defaultdict(list, {"x": [torch.ones(2)]})
    batch = {"a": (torch.ones(1), "text", 3), "b": Pair(torch.ones(2), None), "c": lists, "d": Counter({"e": 2})}
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"][0].device.type == moved["b"].first.device.type == moved["c"]["x"][0].device.type == "meta"
    assert moved["a"][1:] == ("text", 3) and type(moved["b"]) is Pair and moved["b"].second is None
    assert type(moved["c"]) is defaultdict and moved["c"]["new"] == [] and moved["d"] == Counter({"e": 2})
    assert lists["x"][0].device.type == "cpu" and "new" not in lists


@pytest.mark.gpu
def test_batches_that_are_copied_ahead_are_the_same(dataset: NoisyDataset) -> None:
    plain = taken(feed_of(DataLoader(dataset, 4, shuffle=True)), 13)
    for depth in (1, 3):
        feed = Prefetcher(
            feed_of(DataLoader(dataset, 4, shuffle=True)), torch.device("cuda"), depth, channels_last=False
        )
        assert same(plain, [x.cpu() for x in taken(feed, 13)])


def test_the_batch_dimension_is_found() -> None:
    assert count_examples({"name": ["a", "b", "c", "d", "e"], "x": torch.zeros(5, 2)}) == 5
    assert count_examples((torch.zeros(3), 1)) == 3 and count_examples({"a": {"b": torch.zeros(4, 1)}}) == 4


def test_the_generators_do_not_draw_the_same_numbers() -> None:
    """torch and numpy seeded with one number repeat each other's words; ours must not, nor python's."""
    seed_generators(11)
    draws = [
        [int(torch.randint(0, 1 << 30, ()).item()) for _ in range(50)],
        [int(np.random.randint(0, 1 << 30)) for _ in range(50)],
        [random.getrandbits(30) for _ in range(50)],
    ]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not set(draws[first]) & set(draws[second])
