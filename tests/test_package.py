"""`import unpooling` is quick, and everything that it promises is there."""

import inspect

import pytest

import unpooling


def test_tensorflow_is_imported_when_it_is_needed_and_not_before(run_command):
    code = """
import sys, unpooling
heavy = {"tensorflow", "keras", "h5py", "numpy", "absl"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert unpooling.LAYERS[-1] == "block5_conv2"
assert not heavy & set(sys.modules)
assert set(unpooling.__all__) <= set(dir(unpooling))
assert unpooling.unpool.__module__ == "unpooling.pooling"
assert "tensorflow" in sys.modules
assert callable(unpooling.load) and "tensorflow_hub" not in sys.modules
"""
    result = run_command("-c", code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", unpooling.__all__)
def test_every_public_name_is_there_and_explained(name):
    value = getattr(unpooling, name)
    assert value is getattr(unpooling, name)
    assert not callable(value) or inspect.getdoc(value)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'unpooling' has no attribute 'nothing'"):
        _ = unpooling.nothing
