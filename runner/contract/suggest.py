"""The nearest name to one that nobody knows, for error messages."""

from collections.abc import Iterable

_LISTED = 12
"""At most this many names are listed in a message."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name in `known` that `name` was probably meant to be, or None."""
    import difflib  # only an error needs it, and it costs a tenth of the start

    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def hint(name: str, known: Iterable[str]) -> str:
    """A clause for the end of a message: the nearest name, or else the names there are."""
    names = [str(candidate) for candidate in known]
    close = nearest(name, names)
    if close is not None:
        return f"did you mean {close!r}?"
    if not names:
        return "there are none"
    rest = len(names) - _LISTED
    return "there are: " + ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
