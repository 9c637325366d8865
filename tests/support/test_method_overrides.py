"""A faster form that a class inherits belongs to the method that it was written for."""

import pytest

from seqgan_env.support.method_overrides import redefined_alone


class Base:
    def plain(self) -> None: ...

    def fast(self) -> None: ...


class OtherPlain(Base):
    def plain(self) -> None: ...


class OtherBoth(OtherPlain):
    def plain(self) -> None: ...

    def fast(self) -> None: ...


class OnlyPlain:
    def plain(self) -> None: ...


class PlainOfAnother(OnlyPlain, Base): ...


@pytest.mark.parametrize(
    ("kind", "alone"),
    [(Base, False), (OtherPlain, True), (OtherBoth, False), (OnlyPlain, False), (PlainOfAnother, True), (object, False)],
)
def test_a_plain_form_redefined_alone(kind: type, alone: bool) -> None:
    assert redefined_alone(kind, "plain", "fast") is alone
