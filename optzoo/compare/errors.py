"""What a comparison tells its user."""


class UserError(ValueError):
    """Something the user asked for cannot be done; the message is one line that says why."""


class NotReused(UserWarning):
    """Runs are repeated, since nothing shows that they would come out as before."""
