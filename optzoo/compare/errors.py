"""What a comparison tells its user."""


class UserError(ValueError):
    """Something the user asked for cannot be done; the message is one line that says why."""


class PairFailed(UserWarning):
    """One optimizer on one problem failed on every worker that tried; the rest went on."""


class NotReused(UserWarning):
    """Runs are repeated, since nothing shows that they would come out as before."""
