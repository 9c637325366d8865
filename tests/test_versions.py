"""`make test-lowest` tests the versions that setup.cfg promises."""

import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def requirements(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def only_version(specifiers: SpecifierSet, operator: str) -> Version | None:
    """The version behind the one specifier of `operator`; None where there is none, or several."""
    found = [Version(specifier.version) for specifier in specifiers if specifier.operator == operator]
    return found[0] if len(found) == 1 else None


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_the_lowest_version_of_everything_is_pinned(setup: configparser.ConfigParser) -> None:
    promised = requirements(setup["options"]["install_requires"] + "\n" + setup["options.extras_require"]["test"])
    tested = requirements((ROOT / "constraints-lowest.txt").read_text(encoding="utf-8"))
    lowest = {requirement.name: only_version(requirement.specifier, ">=") for requirement in promised}
    pinned = {requirement.name: only_version(requirement.specifier, "==") for requirement in tested}
    assert None not in lowest.values()
    assert pinned == lowest


def test_the_oldest_python_promised_is_listed_in_the_classifiers(setup: configparser.ConfigParser) -> None:
    promised = only_version(SpecifierSet(setup["options"]["python_requires"]), ">=")
    classifiers = setup["metadata"]["classifiers"].split("\n")
    pythons = [line.rpartition(" :: ")[2] for line in classifiers if ":: Python :: 3." in line]
    assert promised == min(map(Version, pythons))
