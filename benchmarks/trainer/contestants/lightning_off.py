"""lightning with everything off that can be."""

from collections.abc import Callable

from contestants import lightning
from task import Task


def build(task: Task) -> Callable[[int], None]:
    """A fit of n steps."""
    return lightning.build(task, barebones=True)
