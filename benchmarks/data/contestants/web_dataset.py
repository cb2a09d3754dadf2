"""webdataset: tar files, read from front to end. Shuffled is approximate: the order of the shards, and a buffer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from photos import Source
from task import BATCH, to_tensor
from webdataset import ShardWriter, WebDataset, WebLoader

SHARDS = 8
BUFFER = 1000
"""Examples that a shuffled pass chooses from: what webdataset's examples have."""


def write(source: Source, folder: Path) -> None:
    """Shards of equal length."""
    writer = ShardWriter(str(folder / "%03d.tar"), maxcount=-(-source.n // SHARDS), verbose=0)
    for number, (path, label) in enumerate(zip(source.files, source.labels.tolist(), strict=True)):
        image = {source.suffix: (source.folder / path).read_bytes()}
        writer.write({"__key__": f"{number:07d}", "cls": label, **image})
    writer.close()


def opened(folder: Path) -> Callable[[bool], Iterator[Any]]:
    """Passes over it."""
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    loaders = []
    for shuffle in (False, True):
        dataset = WebDataset(shards, shardshuffle=SHARDS if shuffle else False)
        dataset = dataset.shuffle(BUFFER) if shuffle else dataset
        dataset = dataset.decode("pil").to_tuple("png;jpg", "cls").map_tuple(to_tensor, int)
        loaders.append(WebLoader(dataset.batched(BATCH), batch_size=None, num_workers=0))
    return lambda shuffle: iter(loaders[shuffle])
