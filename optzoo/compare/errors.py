"""Mistakes that a user can mend."""


class UserError(ValueError):
    """Something the user asked for cannot be done; the message is one line that says why."""
