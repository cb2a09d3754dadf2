"""The errors a user can cause or must act on. Only the CLI prints them, one line each, and exits."""


class RunnerError(Exception):
    """Something the user can mend. The text says what, what was found, what was expected and the next step, in one line."""

    exit_code = 2


class EngineError(RunnerError):
    """The container engine refused, failed or stopped answering. 125 is what `docker run` itself exits with."""

    exit_code = 125
