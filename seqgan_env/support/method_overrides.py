"""Two methods of a class, one of them a faster form of the other: whether they still belong together."""


def redefined_alone(kind: type, plain: str, fast: str) -> bool:
    """Whether a class inherits the faster form of a method from a class that has another version of the method.

    Args:
        kind: the class.
        plain: the method's name.
        fast: the name of its faster form.
    """
    latest = next((owner for owner in kind.__mro__ if vars(owner).keys() & {plain, fast}), object)
    return hasattr(kind, fast) and fast not in vars(latest)
