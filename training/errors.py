"""The one exception that a user's data, vocabulary or checkpoint can cause."""


class DataError(ValueError):
    """Input that cannot be used: one line with the file, the line where there is one, and the remedy."""
