"""Attributes that cannot be changed after construction."""

from typing import Any, ClassVar


class ReadOnly:
    """Base class for objects whose parts are built from some of the attributes: a later change would reach only some parts.

    Setting an attribute in `read_only` again raises an AttributeError.
    """

    read_only: ClassVar[frozenset[str]] = frozenset()
    """The attributes' names."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.read_only and name in vars(self):
            kind = type(self).__name__
            raise AttributeError(f"{name} of a {kind} cannot be changed: create a new {kind} with another {name}.")
        super().__setattr__(name, value)
