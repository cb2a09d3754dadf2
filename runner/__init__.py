"""One command launches one experiment in a fresh container, with everything needed to run it again in its folder."""

__version__ = "0.1.0"
