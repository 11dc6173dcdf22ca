"""requirements.txt: every package pinned, with its hashes, within the ranges of pyproject.toml."""

import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [
    Requirement(line)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in group
]
PYTHONS = ("3.10.0", "3.10.19", "3.11.0", "3.11.14", "3.12.0", "3.12.12", "3.13.0", "3.13.9")

every_declared = pytest.mark.parametrize("declared", DECLARED, ids=lambda r: r.name)


def locked():
    """Each entry of requirements.txt as (requirement, hashes)."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    entries = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line.strip())
            entries.append((Requirement(requirement), hashes))
    return entries


def version(requirement):
    (specifier,) = requirement.specifier
    return Version(specifier.version)


def applies(requirement, python):
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def test_every_requirement_is_pinned_to_one_version():
    assert len(locked()) > len(DECLARED)  # the indirect ones too
    for requirement, _ in locked():
        operators = [specifier.operator for specifier in requirement.specifier]
        assert operators == ["=="], requirement
        assert "*" not in str(requirement.specifier), requirement
        assert requirement.url is None, requirement


def test_every_requirement_has_hashes():
    for requirement, hashes in locked():
        assert hashes, requirement
        for value in hashes:
            assert re.fullmatch("sha256:[0-9a-f]{64}", value), requirement


def test_the_ranges_cover_tests_and_lint():
    assert {r.name for r in DECLARED} >= {"tensorflow", "pytest", "ruff"}


@every_declared
def test_every_declared_dependency_is_locked_within_its_range(declared):
    name = canonicalize_name(declared.name)
    found = [r for r, _ in locked() if canonicalize_name(r.name) == name]
    assert found
    for requirement in found:
        assert declared.specifier.contains(version(requirement)), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_each_python_gets_each_dependency_once(python):
    assert python in SpecifierSet(PROJECT["requires-python"])
    names = [canonicalize_name(r.name) for r, _ in locked() if applies(r, python)]
    assert len(names) == len(set(names))
    assert {canonicalize_name(r.name) for r in DECLARED} <= set(names)


def test_make_installs_nothing_whose_hash_is_not_listed():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    # `make lock` alone, in an environment of its own, fetches what chooses the versions.
    installs = [line for line in installs if "build/lock/bin/pip" not in line]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0].split()
    assert installs[0].rstrip().endswith("-r requirements.txt")


def test_make_lock_writes_hashes_for_tests_and_lint_too():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (compile_,) = [line for line in makefile.splitlines() if "pip compile" in line]
    words = compile_.split()
    assert "--generate-hashes" in words
    for extra in PROJECT["optional-dependencies"]:
        assert f"--extra {extra}" in " ".join(words)
