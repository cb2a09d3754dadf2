"""How the log looks: the blocks that people know by heart."""

LINE = "-" * 100


def duration(seconds: float) -> str:
    """00h04m46s; hours go on past 99."""
    whole = max(0, int(seconds))
    return f"{whole // 3600:02d}h{whole // 60 % 60:02d}m{whole % 60:02d}s"


def milliseconds(seconds: float) -> str:
    """7ms; below 1 ms with two digits, so that a fast step does not read as none."""
    ms = seconds * 1e3
    return f"{ms:.0f}ms" if ms >= 1 else f"{ms:.2f}ms"


def training_block(
    *,
    step: int,
    n_iterations: int,
    examples_per_s: float,
    loss: float,
    elapsed_s: float,
    left_s: float,
    fetch_s: float,
    update_s: float,
) -> str:
    """The two lines of a logged step and an empty one."""
    return (
        f"Iteration {step:>4}/{n_iterations} | examples/s: {examples_per_s:5.1f} | loss: {loss:.4f} | "
        f"time elapsed: {duration(elapsed_s)} | time left: {duration(left_s)}\n"
        f"Fetch data time: {milliseconds(fetch_s)}, model update time: {milliseconds(update_s)}\n"
    )


def heading(title: str) -> str:
    """A title between two lines."""
    return f"{LINE}\n{title}\n{LINE}"


def best_line(before: float, after: float) -> str:
    """How far the best score moved."""
    return f"New best score: {_score(before)} -> {_score(after)}"


def score_line(what: str, score: float) -> str:
    """`Val score: 0.596`."""
    return f"{what}: {_score(score)}"


def _score(score: float) -> str:
    return f"{score:.3f}"
