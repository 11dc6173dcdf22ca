"""The hub's tree: where everything lies, what stays, what is refused."""

import json
import os
import re
import shutil

import pytest

from export import checksums, hub_page, spec
from publish import tree

MODEL = "vgg19-block1-conv2"
DOCS = "assets/docs/emilutz"
FILES = f"vgg19-with-unpooling/{MODEL}"


@pytest.fixture(scope="module")
def artifacts(build, tmp_path_factory):
    """A folder with two artifacts, and with what is none."""
    folder = tmp_path_factory.mktemp("artifacts")
    for layer, dtype in (("block1_conv2", "int64"), ("block2_conv2", "int32")):
        shutil.copytree(build(layer, dtype), folder / build(layer, dtype).name)
    (folder / ".vgg19-block3-conv2.staging-abcdefgh").mkdir()
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def one(artifacts, tmp_path):
    """A folder with one artifact, to be changed."""
    shutil.copytree(artifacts / MODEL, tmp_path / "one" / MODEL)
    return tmp_path / "one"


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def add(artifacts, output_dir, overwrite=False):
    return tree.add(tree.artifact_folders(str(artifacts)), str(output_dir), overwrite)


def another_version(one, version):
    """Makes the artifact of `one` another version, by hand, under a URL of its own."""
    folder = one / MODEL
    card = (folder / "encoder.md").read_text(encoding="utf-8")
    card = card.replace("unpooling-encoder/1\n", f"unpooling-encoder/{version}\n", 1)
    card = card.replace("vgg19-with-unpooling/", f"vgg19-with-unpooling/{version}/")
    (folder / "encoder.md").write_text(card, encoding="utf-8")
    seal(folder)


def seal(folder):
    """Writes the checksums of a folder anew."""
    checksums.write(str(folder), spec.files("encoder")[:-1])


def test_pages_and_files_have_their_places(artifacts, tmp_path):
    added = add(artifacts, tmp_path / "hub")
    assert [(m.page.name, m.page.version) for m in added] == [
        (f"vgg19-block{k}-conv2-unpooling-encoder", 1) for k in (1, 2)
    ]
    expected = {f"{DOCS}/emilutz.md", f"{DOCS}/collections/vgg19-unpooling-encoder-decoder/1.md"}
    for k in (1, 2):
        expected.add(f"{DOCS}/models/vgg19-block{k}-conv2-unpooling-encoder/1.md")
        expected |= {
            f"vgg19-with-unpooling/vgg19-block{k}-conv2/{n}" for n in spec.files("encoder")
        }
    found = content(tmp_path / "hub")
    assert set(found) == expected
    card = (artifacts / MODEL / "encoder.md").read_bytes()
    assert found[f"{DOCS}/models/{MODEL}-unpooling-encoder/1.md"] == card
    for name in spec.files("encoder"):
        assert found[f"{FILES}/{name}"] == (artifacts / MODEL / name).read_bytes()


def test_every_page_keeps_the_rules_and_lies_where_the_hub_wants_it(artifacts, tmp_path):
    add(artifacts, tmp_path / "hub")
    docs = tmp_path / "hub" / "assets" / "docs"
    pages = list(docs.rglob("*.md"))
    assert len(pages) == 4
    for path in pages:
        page = hub_page.read(path.read_text(encoding="utf-8"))
        assert path.relative_to(docs).as_posix() == hub_page.docs_path(page)


def test_the_collection_lists_what_was_built_as_the_manifests_say(artifacts, tmp_path):
    add(artifacts, tmp_path / "hub")
    path = tmp_path / "hub" / DOCS / "collections" / "vgg19-unpooling-encoder-decoder" / "1.md"
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if "| [" in line]
    assert len(rows) == 2
    for row, k, shape in zip(rows, (1, 2), ("(B, H, W, 64)", "(B, H/2, W/2, 128)"), strict=True):
        size = (artifacts / f"vgg19-block{k}-conv2" / "encoder.tar.gz").stat().st_size
        name = f"vgg19-block{k}-conv2-unpooling-encoder"
        assert row == (
            f"| [`{name}`](/emilutz/{name}/1) | `{shape}` | {k} | random: untrained | "
            f"{size:,} bytes |"
        )


def test_models_that_were_added_earlier_stay_and_are_listed(artifacts, one, tmp_path):
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
        another_version(one, version)
        card = one / MODEL / "encoder.md"
        add(one, tmp_path / "hub")
        text = card.read_text(encoding="utf-8")
        text = text.replace(f"encoder/{version}\n", "encoder/1\n", 1)
        card.write_text(text.replace(f"unpooling/{version}/", "unpooling/"), encoding="utf-8")
        seal(one / MODEL)
    versions = [module.page.version for module in tree.modules(str(tmp_path / "hub"))]
    assert versions == [1, 9, 10]
    found = content(tmp_path / "hub")
    collection = found[f"{DOCS}/collections/vgg19-unpooling-encoder-decoder/1.md"].decode()
    assert re.findall(r"encoder/(\d+)\)", collection) == ["10"]
    kept = {name for name in before if name.startswith(FILES) or "/models/" in name}
    assert {name: found[name] for name in kept} == {name: before[name] for name in kept}


def test_a_version_that_is_there_is_replaced_only_with_overwrite(one, tmp_path):
    add(one, tmp_path / "hub")
    before = content(tmp_path / "hub")
    add(one, tmp_path / "hub")  # The same once more replaces nothing.
    assert content(tmp_path / "hub") == before
    (one / MODEL / "encoder.png").write_bytes(b"another picture")
    seal(one / MODEL)
    with pytest.raises(FileExistsError, match="pass --overwrite to replace that version"):
        add(one, tmp_path / "hub")
    assert content(tmp_path / "hub") == before
    add(one, tmp_path / "hub", overwrite=True)
    assert content(tmp_path / "hub")[f"{FILES}/encoder.png"] == b"another picture"


def test_a_folder_without_artifacts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no folder of .* holds an encoder\.tar\.gz"):
        add(tmp_path, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def change_archive(folder):
    with open(folder / "encoder.tar.gz", "ab") as file:
        file.write(b"more")


def state_another_layer(folder):
    path = folder / "encoder.manifest.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    stated["layer"] = "block2_conv2"
    path.write_text(json.dumps(stated), encoding="utf-8")
    seal(folder)


def change_the_archive_and_its_checksum(folder):
    change_archive(folder)
    seal(folder)


def break_a_rule_of_the_hub(folder):
    path = folder / "encoder.md"
    path.write_text(path.read_text(encoding="utf-8").replace("license: mit", "license: bsd"))
    seal(folder)


def replace_in_card(old, new):
    def change(folder):
        path = folder / "encoder.md"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        seal(folder)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_archive, "is not a complete artifact: encoder.tar.gz has the SHA-256"),
        (change_the_archive_and_its_checksum, "something follows its end"),
        (lambda folder: os.remove(folder / "encoder.png"), "encoder.png is missing"),
        (lambda folder: os.remove(folder / "SHA256SUMS"), "SHA256SUMS is not a file"),
        (state_another_layer, "is not a complete artifact: the module's name must be"),
        (break_a_rule_of_the_hub, "`license` must be one of the hub's tags"),
        (
            replace_in_card("https://storage.googleapis.com/vgg19-with-unpooling/", "http://a/../"),
            "must have folders in its path, none of them `.` or `..`",
        ),
        (
            replace_in_card("https://storage.googleapis.com/", "https://a.org/assets/docs/"),
            "outside assets/docs",
        ),
    ],
)
def test_what_is_not_a_complete_artifact_is_refused_and_changes_nothing(
    artifacts, one, tmp_path, change, words
):
    shutil.copytree(artifacts / "vgg19-block2-conv2", one / "vgg19-block2-conv2")
    change(one / MODEL)
    with pytest.raises(ValueError) as caught:
        add(one, tmp_path / "hub")
    assert words in str(caught.value)
    assert not (tmp_path / "hub").exists()


def test_two_artifacts_in_one_place_are_refused(one, tmp_path):
    shutil.copytree(one / MODEL, one / "copy")
    with pytest.raises(ValueError, match="would both be"):
        add(one, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_page_in_the_wrong_place_of_the_tree_is_found(one, tmp_path):
    add(one, tmp_path / "hub")
    models = tmp_path / "hub" / DOCS / "models"
    (models / f"{MODEL}-unpooling-encoder").rename(models / "another-name")
    with pytest.raises(ValueError, match="must lie in"):
        tree.modules(str(tmp_path / "hub"))


def test_the_command_says_what_it_did(run_command, one, tmp_path):
    flags = [f"--artifacts={one}", f"--output_dir={tmp_path / 'hub'}"]
    result = run_command("-m", "publish.tree", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"emilutz/{MODEL}-unpooling-encoder/1: "
        f"https://storage.googleapis.com/{FILES}/encoder.tar.gz",
        f"done: {tmp_path / 'hub'}",
    ]
    (one / MODEL / "encoder.png").write_bytes(b"another picture")
    seal(one / MODEL)
    again = run_command("-m", "publish.tree", *flags)
    assert again.returncode == 1
    assert again.stdout == ""
    assert again.stderr.splitlines()[-1].startswith("publish.tree: ")
    assert "pass --overwrite" in again.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--artifacts=nowhere"], "nowhere"),
        (["--colour=red"], "Unknown command line flag 'colour'"),
        (["dist"], "no arguments but flags are taken. Received: dist."),
    ],
)
def test_a_wrong_flag_gets_one_line(run_command, tmp_path, flags, words):
    result = run_command("-m", "publish.tree", f"--output_dir={tmp_path / 'hub'}", *flags)
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("publish.tree: ")]
    assert len(lines) == 1 and words in lines[0]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "hub").exists()


# Decoders.


def test_a_decoder_lies_beside_its_encoder(build, build_decoder, tmp_path):
    for folder in (build("block1_conv2"), build_decoder("block1_conv2")):
        shutil.copytree(folder, tmp_path / "both" / folder.name)
    added = add(tmp_path / "both", tmp_path / "hub")
    assert [(module.kind, module.page.name) for module in added] == [
        ("decoder", "vgg19-block1-conv2-unpooling-decoder"),
        ("encoder", "vgg19-block1-conv2-unpooling-encoder"),
    ]
    found = content(tmp_path / "hub")
    for kind, folder in (("encoder", MODEL), ("decoder", f"{MODEL}-decoder")):
        for name in spec.files(kind):
            assert f"vgg19-with-unpooling/{folder}/{name}" in found
    page = found[f"{DOCS}/collections/vgg19-unpooling-encoder-decoder/1.md"].decode()
    assert "| encoder | features |" in page
    assert "| decoder | error |" in page
    row = "unpooling-decoder/1) | not measured | random: untrained |"
    assert row in page


def test_the_collection_has_the_measured_error(build_decoder, tmp_path):
    folder = tmp_path / "one" / "decoder"
    shutil.copytree(build_decoder("block1_conv2"), folder)
    stated = json.loads((folder / "decoder.manifest.json").read_text())
    stated["weights"]["training"] = {"evaluation": {"error": 2.0625}}
    (folder / "decoder.manifest.json").write_text(json.dumps(stated))
    checksums.write(str(folder), spec.files("decoder")[:-1])
    add(tmp_path / "one", tmp_path / "hub")
    found = content(tmp_path / "hub")
    page = found[f"{DOCS}/collections/vgg19-unpooling-encoder-decoder/1.md"].decode()
    assert "unpooling-decoder/1) | 2.062 |" in page
    assert "| encoder |" not in page


def test_two_archives_in_one_folder_are_refused(build, build_decoder, tmp_path):
    shutil.copytree(build("block1_conv2"), tmp_path / "one" / "both")
    shutil.copytree(build_decoder("block1_conv2"), tmp_path / "one" / "both", dirs_exist_ok=True)
    with pytest.raises(ValueError, match=r"it holds encoder\.tar\.gz and decoder\.tar\.gz"):
        add(tmp_path / "one", tmp_path / "hub")
    assert not (tmp_path / "hub").exists()
