"""Arguments below the intervals that constructors declare, as in ``count: Annotated[int, "[1, inf)"]``."""

from typing import Annotated, Any, get_args, get_origin, get_type_hints

from lightning.pytorch.utilities.exceptions import MisconfigurationException


def check_ranges(key: str, cls: type, made: Any) -> None:
    """Raise MisconfigurationException where an attribute is too small for the argument of its name of a constructor."""
    for name, hint in get_type_hints(cls.__init__, include_extras=True).items():  # type: ignore[misc]
        value = getattr(made, name, None)
        for interval in [get_args(part)[1] for part in (hint, *get_args(hint)) if get_origin(part) is Annotated]:
            low, open_ended = interval[1:].partition(",")[0], interval[0] == "("
            if value is not None and not (value > float(low) if open_ended else value >= float(low)):
                least = f"more than {low}" if open_ended else f"{low} or more"
                raise MisconfigurationException(f"--{key}.{name} must be {least}; got {value}")
