"""The fingerprint: TensorFlow's own, but for a UUID that follows from the model's content."""

import hashlib
import shutil

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from export import fingerprint
from unpooling import archive

FILES = (
    "fingerprint.pb",
    "saved_model.pb",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A small model, as TensorFlow saves it."""
    directory = tmp_path_factory.mktemp("original") / "model"
    tf.saved_model.save(tf.train.Checkpoint(v=tf.Variable([1.0, 2.0])), str(directory))
    return directory


@pytest.fixture
def model(original, tmp_path):
    """The same model with a fingerprint that fits."""
    shutil.copytree(original, tmp_path / "model")
    fingerprint.write(str(tmp_path / "model"))
    return tmp_path / "model"


def parsed(directory):
    content = (directory / "fingerprint.pb").read_bytes()
    return fingerprint_pb2.FingerprintDef.FromString(content)


def refused(directory):
    """Whether the fingerprint is held not to fit, for that reason and in one line."""
    with pytest.raises(ValueError) as caught:
        fingerprint.check(str(directory))
    assert str(caught.value).isprintable()
    return str(caught.value).startswith("fingerprint.pb does not fit saved_model.pb, variables/")


def test_all_files_of_an_archive_are_looked_at():
    assert archive.files() == FILES


def test_a_fingerprint_fits_the_files_that_it_was_made_of(model):
    assert fingerprint.check(str(model)) == parsed(model).uuid


def test_the_same_content_has_the_same_fingerprint(model, original, tmp_path):
    first = (model / "fingerprint.pb").read_bytes()
    fingerprint.write(str(model))
    shutil.copytree(original, tmp_path / "elsewhere" / "copy")
    (tmp_path / "elsewhere" / "copy" / "fingerprint.pb").unlink()
    fingerprint.write(str(tmp_path / "elsewhere" / "copy"))

    assert (model / "fingerprint.pb").read_bytes() == first
    assert (tmp_path / "elsewhere" / "copy" / "fingerprint.pb").read_bytes() == first


def test_the_uuid_is_the_start_of_a_hash_of_everything_else(model):
    rest = parsed(model)
    rest.ClearField("uuid")
    content = rest.SerializeToString(deterministic=True)
    for name in FILES[1:]:
        content += hashlib.sha256((model / name).read_bytes()).digest()

    assert parsed(model).uuid == str(int(hashlib.sha256(content).hexdigest()[:32], 16))


def test_the_uuid_shows_what_the_other_fields_do_not(model):
    # TensorFlow hashes the index of the variables, not their values.
    before = parsed(model)
    data = model / FILES[2]
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    fingerprint.write(str(model))
    after = parsed(model)

    assert after.uuid != before.uuid
    after.uuid = before.uuid
    assert after == before


def test_the_other_fields_are_those_that_tensorflow_writes(model, original, tmp_path):
    shutil.copytree(model, tmp_path / "again")
    fingerprinting_utils.write_fingerprint(str(tmp_path / "again"))
    written = tf.saved_model.experimental.read_fingerprint(str(model))

    for other in (original, tmp_path / "again"):
        found = tf.saved_model.experimental.read_fingerprint(str(other))
        assert found.singleprint() == written.singleprint()
        for field in (
            "saved_model_checksum",
            "graph_def_program_hash",
            "signature_def_hash",
            "saved_object_graph_hash",
            "checkpoint_hash",
        ):
            assert getattr(found, field) == getattr(written, field), field
    assert written.saved_model_checksum != 0
    fields = {field.name for field, _ in parsed(model).ListFields()}
    assert fields == {field.name for field, _ in parsed(original).ListFields()}
    assert parsed(model).version == parsed(original).version


def test_tensorflow_still_reads_the_model(model):
    assert list(tf.saved_model.load(str(model)).v.numpy()) == [1, 2]
    found = tf.saved_model.experimental.read_fingerprint(str(model))
    assert found.saved_model_checksum == parsed(model).saved_model_checksum


@pytest.mark.parametrize("position", [0, 0.3, 0.7, -1])
@pytest.mark.parametrize("name", FILES[1:])
def test_a_changed_byte_is_found(model, name, position):
    content = bytearray((model / name).read_bytes())
    if isinstance(position, float):
        position = int(position * len(content))
    content[position] ^= 1
    (model / name).write_bytes(content)

    assert refused(model)


def test_a_flipped_bit_anywhere_in_the_fingerprint_is_found(model):
    good = (model / "fingerprint.pb").read_bytes()
    for bit in range(8 * len(good)):
        content = bytearray(good)
        content[bit // 8] ^= 1 << bit % 8
        (model / "fingerprint.pb").write_bytes(content)
        with pytest.raises(ValueError, match=r"^fingerprint\.pb (does not fit|is not a finger)"):
            fingerprint.check(str(model))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change", [lambda c: b"", lambda c: c[:-1], lambda c: c + b"\0"], ids=["none", "less", "more"]
)
def test_a_file_of_another_length_is_found(model, name, change):
    (model / name).write_bytes(change((model / name).read_bytes()))

    with pytest.raises(ValueError, match=r"^fingerprint\.pb (does not fit|is not a fingerprint)"):
        fingerprint.check(str(model))


def test_files_that_changed_places_are_found(model):
    data, index = (model / FILES[2]).read_bytes(), (model / FILES[3]).read_bytes()
    (model / FILES[2]).write_bytes(index)
    (model / FILES[3]).write_bytes(data)

    assert refused(model)


def test_the_random_fingerprint_of_tensorflow_is_found(original):
    assert refused(original)


def test_the_fingerprint_of_another_model_is_found(model, tmp_path):
    other = tmp_path / "other"
    tf.saved_model.save(tf.train.Checkpoint(v=tf.Variable([1.0, 3.0])), str(other))
    fingerprint.write(str(other))
    shutil.copy(other / "fingerprint.pb", model / "fingerprint.pb")

    assert refused(model)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content + b"\x98\x06\x01",
        lambda content: content + b"\x08\x00",
        lambda content: content + content,
    ],
    ids=["a field of the future", "a field again", "everything again"],
)
def test_another_spelling_of_the_same_fields_is_found(model, change):
    (model / "fingerprint.pb").write_bytes(change((model / "fingerprint.pb").read_bytes()))

    assert refused(model)


def test_another_order_of_the_same_fields_is_found(model):
    message = parsed(model)
    head = fingerprint_pb2.FingerprintDef(uuid=message.uuid).SerializeToString()
    message.ClearField("uuid")
    (model / "fingerprint.pb").write_bytes(head + message.SerializeToString())

    assert parsed(model).uuid
    assert refused(model)


def test_other_fields_under_the_same_uuid_are_found(model):
    message = parsed(model)
    message.saved_model_checksum += 1
    (model / "fingerprint.pb").write_bytes(message.SerializeToString(deterministic=True))

    assert refused(model)


def test_what_is_no_fingerprint_is_refused(model):
    (model / "fingerprint.pb").write_bytes(b"\xff" * 20)

    with pytest.raises(ValueError, match=r"^fingerprint\.pb is not a fingerprint \("):
        fingerprint.check(str(model))
