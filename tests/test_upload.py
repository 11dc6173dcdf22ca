"""What goes to other hubs: the SavedModel as it is, and a card that is right there."""

import dataclasses
import logging
import subprocess

import pytest

from export import card, manifest
from publish import hosting, tree


@pytest.fixture(scope="module", params=["block1_conv2", "block2_conv2"])
def module(build, request):
    return tree.read_module(str(build(request.param)))


def make_readme(module):
    return hosting.readme(module, "some_package", {"encoder": 'some_package.download("me/it")'})


def test_the_card_is_the_modules_own_but_for_what_is_another_thing_there(module):
    readme = make_readme(module)
    with open(f"{module.folder}/encoder.md", encoding="utf-8") as file:
        original = file.read()
    assert readme.startswith(f"# {module.page.name}\n\n{module.page.description}\n\n## Overview\n")
    assert f"![Architecture of {module.page.name}](encoder.png)\n" in readme
    assert "asset-path" not in readme and module.asset_path not in readme
    assert readme.count('MODULE_URL = some_package.download("me/it")\n') == 1
    assert '# pip install some-package tensorflow tensorflow-hub "setuptools<82"\n' in readme
    assert "import some_package\nimport tensorflow as tf\n" in readme
    assert len(card.code_blocks(readme)) == len(card.code_blocks(original))
    assert sum(line not in readme.split("\n") for line in original.split("\n")) == 13
    assert readme.split("## Training")[1] == original.split("## Training")[1]


def test_a_decoders_card_downloads_both_halves(build_decoder):
    module = tree.read_module(str(build_decoder("block2_conv2")))
    downloads = {"encoder": 'some_package.download("me/e")', "decoder": 'some_package.get("me/d")'}
    readme = hosting.readme(module, "some_package", downloads)
    assert 'ENCODER_URL = some_package.download("me/e")\n' in readme
    assert 'DECODER_URL = some_package.get("me/d")\n' in readme
    assert "![Architecture of vgg19-block2-conv2-unpooling-decoder](decoder.png)" in readme
    assert hosting.notes(module).startswith(
        "vgg19-block2-conv2-unpooling-decoder/1: decoder for VGG19 up to block2_conv2; untrained: "
    )
    with hosting.contents(module, readme) as folder:
        listing = hosting.listing(folder, {"to": "there"})
    assert " decoder.manifest.json\n" in listing and " decoder.png\n" in listing


def test_a_card_that_was_changed_by_hand_is_refused(module, tmp_path):
    with open(f"{module.folder}/encoder.md", encoding="utf-8") as file:
        text = file.read().replace("import tensorflow as tf", "import tensorflow")
    (tmp_path / "encoder.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"import tensorflow as tf.*; it has 0"):
        make_readme(dataclasses.replace(module, folder=str(tmp_path)))


def test_the_folder_holds_the_saved_model_and_what_there_is_to_read(module, saved_model):
    with hosting.contents(module, "the card\n") as folder:
        members = manifest.read(f"{module.folder}/encoder.manifest.json")["members"]
        listing = hosting.listing(folder, {"to": "there"})
        beside = ["README.md", "SHA256SUMS", "encoder.manifest.json", "encoder.png"]
        assert [line.split()[-1] for line in listing.split("\n")[1:-1]] == sorted(
            [*members, *beside]
        )
        for name, digest in members.items():
            assert f"{digest['sha256']}  {digest['bytes']:>11,} bytes  {name}\n" in listing
        with open(f"{folder}/README.md") as file:
            assert file.read() == "the card\n"
        result = subprocess.run(
            ["sha256sum", "--check", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
        )
        assert result.returncode == 0
        assert result.stdout.count(": OK\n") == 7
    with pytest.raises(FileNotFoundError), open(f"{folder}/README.md"):
        pass


def test_the_notes_say_what_a_version_is_made_of(module):
    stated = module.manifest
    notes = hosting.notes(module)
    assert "\n" not in notes
    for fact in (
        f"{module.page.name}/1: encoder for VGG19 up to {stated['layer']}",
        "untrained: random weights from seed 0",
        stated["archive"]["sha256"],
        f"tensorflow {stated['versions']['tensorflow']}",
    ):
        assert fact in notes
    assert ("int64 indices, pooling by argmax" in notes) == (stated["layer"] != "block1_conv2")


@pytest.mark.parametrize(
    "weights, words",
    [
        (
            {"source": "imagenet", "seed": None},
            "ImageNet weights by K. Simonyan and A. Zisserman, CC BY 4.0, from Keras",
        ),
        (
            {"source": "file", "seed": None, "file_name": "v\n.h5", "file_sha256": "12ab"},
            "weights from v .h5, SHA-256 12ab",
        ),
    ],
)
def test_the_notes_name_the_source_of_the_weights(module, weights, words):
    weights = {"file_name": None, "file_sha256": None, **weights}
    other = dataclasses.replace(module, manifest={**module.manifest, "weights": weights})
    assert f"; {words}; " in hosting.notes(other)


def test_errors_are_told_with_their_causes_and_without_signatures():
    try:
        try:
            raise OSError("PUT https://x.org/a?signature=abc&key=d failed")
        except OSError as error:
            raise RuntimeError("while uploading\n 'a'.") from error
    except RuntimeError as error:
        found = hosting.explain(error)
    assert found == "while uploading 'a': PUT https://x.org/a?... failed"
    assert hosting.explain(KeyError()) == "KeyError"
    assert hosting.explain(OSError("Why? Because")) == "Why? Because"


def test_log_records_lose_their_signatures(caplog):
    factory = logging.getLogRecordFactory()
    try:
        hosting.hide_signatures()
        logging.getLogger("library").warning("Issue: %s, retrying", "url: /up/1?id=abc (x)")
    finally:
        logging.setLogRecordFactory(factory)
    assert caplog.messages == ["Issue: url: /up/1?... (x), retrying"]
