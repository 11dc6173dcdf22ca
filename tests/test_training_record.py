"""What is known of a training survives its file, and nothing else passes for it."""

import dataclasses
import math

import pytest

from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord

RECORD = TrainingRecord(
    layer="block1_conv2",
    encoder={"source": "random", "seed": 0, "sha256": {"block1_conv1": "ab"}},
    flags={"batch": 8, "photos": "photos"},
    photographs={"train": 3, "validation": 1},
    steps=7,
    feature_scale=1.5,
    validation={"error": 2.0},
)
EVALUATED = dataclasses.replace(RECORD, evaluation={"photographs": 1, "error": 2.5})


@pytest.mark.parametrize("record", [RECORD, EVALUATED])
def test_a_record_comes_back_from_json(record):
    assert TrainingRecord.from_json(record.to_json()) == record
    values = {name: value for name, value in record.to_dict().items() if value is not None}
    assert TrainingRecord.from_dict(values) == record


def test_the_command_has_every_flag_that_was_set():
    flags = {"layer": "block1_conv2", "initial_weights": None, "photographs_sha256": "ab"}
    record = dataclasses.replace(RECORD, flags=flags)
    assert record.command == "python train_decoder.py --layer=block1_conv2"


def test_a_number_that_json_does_not_have_is_not_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(RECORD, validation={"error": float("nan")}).to_json()


@pytest.mark.parametrize("text", ["", "{", "[" * 10_000, "nothing"])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(UserError, match="a training record must be JSON: "):
        TrainingRecord.from_json(text)


@pytest.mark.parametrize("text", ["null", "[]", "{}", '{"layer": "block1_conv2"}'])
def test_missing_fields_are_refused(text):
    with pytest.raises(UserError, match="a training record must hold layer, encoder, flags, "):
        TrainingRecord.from_json(text)


WRONG = [(name, None) for name in RECORD.to_dict() if name != "evaluation"]
WRONG += [("layer", 1), ("encoder", {"source": "random"}), ("photographs", {"train": "3"})]
WRONG += [("steps", True), ("feature_scale", math.inf), ("evaluation", [1])]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_field_of_another_type_or_an_unknown_one_is_refused(field, value):
    with pytest.raises(UserError, match="a training record has a field of another type: "):
        TrainingRecord.from_dict({**RECORD.to_dict(), field: value})
    with pytest.raises(UserError, match="a training record has no field 'more'"):
        TrainingRecord.from_dict({**RECORD.to_dict(), "more": value})
