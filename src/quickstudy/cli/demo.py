"""demo"""


def demo() -> None:
    """The whole way in one command."""
