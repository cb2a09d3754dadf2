"""One contestant in a process of its own: `serve.py MODULE NAME FOLDER '{"setting": value}'`, run by run.py.

It answers requests, one JSON value a line, and is idle between them: run.py asks one contestant after the other, so that
all of them see the same weather. What contestants print goes to stderr's file.
"""

import importlib
import json
import os
import sys
import warnings
from pathlib import Path


def main() -> None:
    """Build the contestant, then answer until stdin ends."""
    module, name, folder, settings = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    if name.startswith("ours"):  # only they: the house has folders that frameworks would take for packages
        sys.path.append(str(Path(__file__).resolve().parents[2]))
    import torch

    torch.set_num_threads(int(settings.pop("threads", 1)))
    answer = importlib.import_module(module).contestant(name, folder, **settings)
    for line in sys.stdin:
        replies.write(json.dumps(answer(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
