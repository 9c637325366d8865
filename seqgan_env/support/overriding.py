"""Two methods of which one is a faster form of the other: whether they still belong together."""


def still_agree(thing: object, fast: str, plain: str) -> bool:
    """Whether the class of `thing` has both methods, and no subclass has redefined the plain one alone."""
    owners = {name: next((c for c in type(thing).__mro__ if name in vars(c)), None) for name in (fast, plain)}
    return None not in owners.values() and issubclass(owners[fast], owners[plain])  # type: ignore[arg-type]
