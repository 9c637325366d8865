"""Check whether a method and its faster form still belong together in a subclass."""


def redefined_alone(kind: type, plain: str, fast: str) -> bool:
    """Whether a class, or a base, redefines a method but not its faster form, which is then inherited and wrong.

    Args:
        kind: the class.
        plain: the method's name.
        fast: the name of its faster form.
    """
    latest = next((owner for owner in kind.__mro__ if vars(owner).keys() & {plain, fast}), object)
    return hasattr(kind, fast) and fast not in vars(latest)
