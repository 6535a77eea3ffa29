"""The words of a command line."""

from collections.abc import Iterator


def options_in(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """The options among the words of a command line, as --key=value or --key value, with their values."""
    for i, argument in enumerate(arguments):
        if argument.startswith("-"):
            key, equals, value = argument.partition("=")
            yield key, value if equals else "".join(arguments[i + 1 : i + 2])
