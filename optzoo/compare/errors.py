"""Mistakes that a user can mend."""


class UserError(ValueError):
    """Something the user asked for cannot be done; the message is one line that says why."""


def one_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
