"""The one exception that a user may see."""


class UserError(Exception):
    """Bad input: one line that names the culprit and the remedy. The command line prints it and exits with status 2."""
