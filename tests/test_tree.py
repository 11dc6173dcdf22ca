"""The hub's tree: where everything lies, what stays, what is refused."""

import json
import re
import shutil

import pytest

from export import artifact, checksums, hub_page
from export.spec import Spec
from publish import tree
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord

MODEL = "vgg19-block1-conv2"
DOCS = "assets/docs/emilutz"
COLLECTION = f"{DOCS}/collections/vgg19-unpooling-encoder-decoder/1.md"
FILES = f"vgg19-with-unpooling/{MODEL}"
ENCODER, DECODER = (Spec(kind, "block1_conv2").files for kind in ("encoder", "decoder"))


@pytest.fixture(scope="module")
def artifacts(build, tmp_path_factory):
    """A folder with two artifacts, and with what is none."""
    folder = tmp_path_factory.mktemp("artifacts")
    for layer, dtype in (("block1_conv2", "int64"), ("block2_conv2", "int32")):
        shutil.copytree(build(layer, dtype), folder / build(layer, dtype).name)
    (folder / ".vgg19-block3-conv2.abcdefgh").mkdir()
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def one(artifacts, tmp_path):
    """A folder with one artifact, to be changed."""
    shutil.copytree(artifacts / MODEL, tmp_path / "one" / MODEL)
    return tmp_path / "one"


def content(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def add(artifacts, output_dir, overwrite=False):
    return tree.add(artifact.find(str(artifacts)), str(output_dir), overwrite)


def seal(folder, files=ENCODER):
    """Writes the checksums of a folder anew."""
    checksums.write(str(folder), files[:-1])


def rewrite(folder, *changes, name="encoder.md"):
    path = folder / name
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    seal(folder, ENCODER if name.startswith("encoder") else DECODER)


def become_version(folder, version):
    """Makes an artifact of version 1 another one, under a URL of its own."""
    places = ("vgg19-with-unpooling/", f"vgg19-with-unpooling/{version}/")
    rewrite(folder, ("unpooling-encoder/1\n", f"unpooling-encoder/{version}\n"), places)


def test_files_and_pages_have_their_places_and_say_what_the_manifests_say(artifacts, tmp_path):
    added = add(artifacts, tmp_path / "hub")
    assert [(a.page.name, a.page.version) for a in added] == [
        (f"vgg19-block{k}-conv2-unpooling-encoder", 1) for k in (1, 2)
    ]
    found = content(tmp_path / "hub")
    expected = {f"{DOCS}/emilutz.md", COLLECTION}
    for k in (1, 2):
        folder = f"vgg19-block{k}-conv2"
        expected.add(f"{DOCS}/models/{folder}-unpooling-encoder/1.md")
        for name in ENCODER:
            expected.add(place := f"vgg19-with-unpooling/{folder}/{name}")
            assert found[place] == (artifacts / folder / name).read_bytes()
    assert set(found) == expected
    for path, text in found.items():
        if path.startswith(DOCS):
            page = hub_page.read(text.decode())
            assert path == f"assets/docs/{hub_page.docs_path(page)}"
    text = found[COLLECTION].decode()
    assert "\n<!-- dataset: other -->\n<!-- task: image-feature-vector -->\n" in text
    for k, shape in enumerate(("(B, H, W, 64)", "(B, H/2, W/2, 128)"), 1):
        name = f"vgg19-block{k}-conv2-unpooling-encoder"
        size = len(found[f"vgg19-with-unpooling/vgg19-block{k}-conv2/encoder.tar.gz"])
        facts = f"`{shape}` | {k} | random: untrained | {size:,} bytes |"
        assert f"\n| [`{name}`](/emilutz/{name}/1) | {facts}\n" in text


def test_what_was_added_earlier_stays_and_is_listed(artifacts, one, tmp_path):
    add(one, tmp_path / "hub")
    shutil.rmtree(one / MODEL)
    shutil.copytree(artifacts / "vgg19-block2-conv2", one / "vgg19-block2-conv2")
    (tmp_path / "hub" / "index.html").write_text("mine")
    add(one, tmp_path / "hub")
    add(artifacts, tmp_path / "at once")
    found = content(tmp_path / "hub")
    assert found.pop("index.html") == b"mine"
    assert found == content(tmp_path / "at once")


def test_another_version_stands_beside_the_first_and_the_newest_is_listed(one, tmp_path):
    add(one, tmp_path / "hub")
    before = content(tmp_path / "hub")
    for version in (10, 9):
        folder = tmp_path / str(version) / MODEL
        shutil.copytree(one / MODEL, folder)
        become_version(folder, version)
        add(folder.parent, tmp_path / "hub")
    assert [a.page.version for a in tree.artifacts(str(tmp_path / "hub"))] == [1, 9, 10]
    found = content(tmp_path / "hub")
    assert re.findall(r"encoder/(\d+)\)", found[COLLECTION].decode()) == ["10"]
    kept = {name for name in before if name.startswith(FILES) or "/models/" in name}
    assert {name: found[name] for name in kept} == {name: before[name] for name in kept}


def test_a_version_that_is_there_is_replaced_only_with_overwrite(one, tmp_path):
    add(one, tmp_path / "hub")
    before = content(tmp_path / "hub")
    add(one, tmp_path / "hub")  # The same once more replaces nothing.
    assert content(tmp_path / "hub") == before
    (one / MODEL / "encoder.png").write_bytes(b"another picture")
    seal(one / MODEL)
    with pytest.raises(UserError, match="pass --overwrite to replace that version"):
        add(one, tmp_path / "hub")
    assert content(tmp_path / "hub") == before
    add(one, tmp_path / "hub", overwrite=True)
    assert content(tmp_path / "hub")[f"{FILES}/encoder.png"] == b"another picture"


def test_two_artifacts_in_one_place_are_refused(one, tmp_path):
    shutil.copytree(one / MODEL, one / "copy")
    with pytest.raises(UserError, match="would both be"):
        add(one, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("in_the_way", ["vgg19-block2-conv2/encoder/mine", "vgg19-block2-conv2"])
def test_what_is_in_the_way_of_one_artifact_is_refused_before_any_is_put_in_place(
    artifacts, tmp_path, in_the_way
):
    path = tmp_path / "hub" / "vgg19-with-unpooling" / in_the_way
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match=r"vgg19-block2-conv2 (holds encoder,|is not a folder)"):
        add(artifacts, tmp_path / "hub", overwrite=True)
    files = [each for each in (tmp_path / "hub").rglob("*") if not each.is_dir()]
    assert files == [path]


URL = "https://storage.googleapis.com/vgg19-with-unpooling/"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("license: mit", "license: bsd", "`license` must be mit"),
        (URL, "http://a/../", "none of them `.` or `..`"),
        (URL, "https://a.org/assets/docs/", "outside assets/docs"),
    ],
)
def test_what_is_not_a_complete_artifact_is_refused_and_changes_nothing(
    artifacts, one, tmp_path, old, new, words
):
    shutil.copytree(artifacts / "vgg19-block2-conv2", one / "vgg19-block2-conv2")
    rewrite(one / MODEL, (old, new))
    with pytest.raises(UserError, match=re.escape(words)):
        add(one, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_page_that_breaks_a_rule_is_left_out_and_named(artifacts, one, tmp_path, caplog):
    add(artifacts, tmp_path / "hub")
    models = tmp_path / "hub" / DOCS / "models"
    (models / f"{MODEL}-unpooling-encoder").rename(models / "another-name")
    (models / "draft").mkdir()
    (models / "draft" / "1.md").write_text("a draft")
    (found,) = tree.artifacts(str(tmp_path / "hub"))
    assert found.spec.layer == "block2_conv2"
    assert "another-name/1.md is left out: it must lie in " in caplog.text
    assert "draft/1.md is left out: the first line must be" in caplog.text
    add(one, tmp_path / "hub", overwrite=True)  # And others can still be added.
    assert len(tree.artifacts(str(tmp_path / "hub"))) == 2


# Decoders.


@pytest.fixture
def pair(build, build_decoder, tmp_path):
    """A folder with an encoder and a decoder that was trained for it."""
    folder = tmp_path / "pair"
    for source in (build("block1_conv2"), build_decoder("block1_conv2")):
        shutil.copytree(source, folder / source.name)
    stated = json.loads((folder / MODEL / "encoder.manifest.json").read_text())
    encoder = {"source": "random", "seed": 0, "sha256": stated["weights"]["layers"]}
    record = TrainingRecord("block1_conv2", encoder, {}, {}, 1, 1.0, {}, {"error": 2.0625})
    change = ('"training": null', f'"training": {record.to_json()}')
    rewrite(folder / f"{MODEL}-decoder", change, name="decoder.manifest.json")
    return folder


def test_a_decoder_lies_beside_its_encoder_and_the_collection_has_its_error(pair, tmp_path):
    added = add(pair, tmp_path / "hub")
    assert [a.spec.kind for a in added] == ["decoder", "encoder"]
    found = content(tmp_path / "hub")
    for names, folder in ((ENCODER, FILES), (DECODER, f"{FILES}-decoder")):
        assert {f"{folder}/{name}" for name in names} <= set(found)
    assert "unpooling-decoder/1) | 2.062 |" in found[COLLECTION].decode()


@pytest.mark.parametrize("first", [None, f"{MODEL}-decoder", MODEL])
def test_a_decoder_of_another_encoder_is_refused_and_both_are_named(pair, tmp_path, first):
    decoder = pair / f"{MODEL}-decoder" / "decoder.manifest.json"
    encoder = json.loads((pair / MODEL / "encoder.manifest.json").read_text())
    digest = encoder["weights"]["layers"]["block1_conv2"]
    rewrite(decoder.parent, (digest, "0" * 64), name=decoder.name)
    hub = tmp_path / "hub"
    if first:
        tree.add([str(pair / first)], str(hub))
    before = content(hub)
    with pytest.raises(UserError, match=rf"decoder in .*{MODEL}-decoder was trained .*{MODEL}:"):
        add(pair, hub)
    assert content(hub) == before


def test_a_decoder_may_have_been_trained_for_an_earlier_version_of_the_encoder(pair, tmp_path):
    add(pair, tmp_path / "hub")
    folder = tmp_path / "new" / MODEL
    shutil.copytree(pair / MODEL, folder)
    manifest = json.loads((folder / "encoder.manifest.json").read_text())
    digest = manifest["weights"]["layers"]["block1_conv2"]
    rewrite(folder, (digest, "0" * 64), name="encoder.manifest.json")
    with pytest.raises(UserError, match="was trained for an encoder with other weights"):
        add(folder.parent, tmp_path / "hub", overwrite=True)
    become_version(folder, 2)
    add(folder.parent, tmp_path / "hub")


def test_the_command_says_what_it_did(run_command, one, tmp_path):
    flags = [f"--artifacts={one}", f"--output_dir={tmp_path / 'hub'}"]
    result = run_command("-m", "publish.tree", *flags)
    assert result.returncode == 0, result.stderr
    added, done = result.stdout.splitlines()
    assert added == f"emilutz/{MODEL}-unpooling-encoder/1: {URL}{MODEL}/encoder.tar.gz"
    assert done == f"done: {tmp_path / 'hub'}"
