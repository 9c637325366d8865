"""Attributes that keep the value with which their object was made."""

from typing import Any, ClassVar


class ReadOnly:
    """A base of classes in which other things are made from some of the attributes: a change would reach half of them.

    To set one of `read_only` again raises an AttributeError.
    """

    read_only: ClassVar[frozenset[str]] = frozenset()
    """Their names."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.read_only and name in vars(self):
            kind = type(self).__name__
            raise AttributeError(f"{name} of a {kind} cannot be changed: make a new {kind} with another {name}.")
        super().__setattr__(name, value)
