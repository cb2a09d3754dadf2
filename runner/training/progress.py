"""What has been completed, and where the data goes on. Counts finished work only, so that it can be saved as it is."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Progress:
    """Counters of one training; all from 0."""

    step: int = 0
    """Optimiser steps completed."""
    epoch: int = 0
    """Epoch of the next batch."""
    batch: int = 0
    """Number of the next batch in its epoch."""
    examples: int = 0
    """Examples trained on, in all processes together."""
    validated_step: int = 0
    """The last step after which a validation was completed."""

    def state_dict(self) -> dict[str, Any]:
        """The counters as plain values."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue counting from a saved state."""
        for name, value in state.items():
            setattr(self, name, value)
