"""Publishes an artifact on Hugging Face with `huggingface_hub`.

    python -m publish.huggingface --artifact=dist/vgg19-block5-conv2 --dry_run

sends the module as a Keras model, which `keras.saving.load_model("hf://OWNER/NAME")` loads, as a
SavedModel and as safetensors, with its manifest, pictures and model card, as one commit to the
repository OWNER/vgg19-block5-conv2-unpooling-encoder. huggingface_hub finds the user's token by
itself: https://huggingface.co/docs/huggingface_hub/quick-start#authentication.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from absl import flags

from export import cli
from export.artifact import Artifact
from publish import hosting
from unpooling import __version__, options, vgg19
from unpooling.errors import UserError

__all__ = ["FORMATS", "HuggingFace", "publish"]

FLAGS = flags.FLAGS

# What `load_model` downloads although it does not need it; so each is asked for.
FORMATS = ("onnx", "litert")


@dataclasses.dataclass
class HuggingFace(hosting.Host):
    """Hugging Face. Each build for a layer has a repository of its own."""

    name = "Hugging Face"
    key = "huggingface"
    form = r"[\w-][\w.-]*/[\w-][\w.-]*"
    wanted = "--repository must be OWNER/NAME"
    credentials = "https://huggingface.co/docs/huggingface_hub/quick-start#authentication"

    private: bool = False
    formats: Sequence[str] = ()

    def default(self, publisher, spec):
        return f"{publisher}/{spec.name}{hosting.variation(spec)}"

    def facts(self, client, place, found):
        return {
            "to": f"{client.HfApi().endpoint}/{place}",
            "if new": "private" if self.private else "public",
            "commit": f"{found.page.name}/{found.page.version}",
            "notes": hosting.notes(found),
        }

    def downloads(self, kind, place):
        download = f'huggingface_hub.snapshot_download(\n    "{place}", allow_patterns={{}}\n)'
        found = {
            # Of "hf://..." Keras 3.15 says that it needs TensorFlow, whatever the backend.
            "keras": download.format('["*.json", "*.h5"]'),
            "saved_model": download.format('"saved_model/*"') + ' + "/saved_model"',
        }
        for name in self.formats:
            file = hosting.file_name(kind, name)
            found[name] = f'huggingface_hub.hf_hub_download("{place}", "{file}")'
        return found

    def add_files(self, folder, found):
        from publish import reconstruction

        folder = pathlib.Path(folder)
        hosting.unpack(found, str(folder / "saved_model"))
        hosting.convert(found, "keras", str(folder / "keras"))
        for path in (folder / "keras").iterdir():
            path.rename(folder / path.name)
        (folder / "keras").rmdir()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = json.dumps({**config, "unpooling": _config(found)}, indent=2)
        (folder / "config.json").write_text(f"{text}\n", encoding="utf-8", newline="\n")
        # The name from which Hugging Face reads how many parameters there are.
        hosting.convert(found, "safetensors", str(folder / "model.safetensors"))
        for name in self.formats:
            hosting.convert(found, name, str(folder / hosting.file_name(found.spec.kind, name)))
        error = reconstruction.draw(found, str(folder / "reconstruction.png"))
        if error is None:
            print("no picture before and after: the other half of the pair is not beside it")
        return {"reconstruction": error}

    def upload(self, client, place, folder, facts):
        api = client.HfApi(library_name="unpooling-encoders", library_version=__version__)
        api.create_repo(place, private=self.private, exist_ok=True)
        if self.private and not api.repo_info(place).private:
            raise UserError(
                f"{place} is there already, and public: make it private on its page, or leave out "
                "--private. Nothing was sent."
            )
        commit = api.upload_folder(
            repo_id=place,
            folder_path=folder,
            commit_message=facts["commit"],
            commit_description=facts["notes"],
            delete_patterns=_OTHER_VERSIONS,
        )
        print(commit.commit_url)

    def errors(self):
        from huggingface_hub import errors as known

        refused = (known.HFValidationError, known.LocalTokenNotFoundError)
        return (known.HTTPError, ConnectionError, *refused)


# What another version may have and this one has not; old ones had the SavedModel at the top.
_OTHER_VERSIONS = [
    "saved_model/*",
    "saved_model.pb",
    "variables/*",
    "reconstruction.png",
    *(hosting.file_name(kind, name) for kind in options.KINDS for name in FORMATS),
]


def _config(found: Artifact) -> dict:
    """What `config.json` says of a module, beside what Keras needs."""
    spec, stated = found.spec, found.manifest
    values = {"channels": "RGB", "range": [0, 255], "sides_multiple_of": spec.downsampling}
    preprocessing = {
        "part_of_the_model": True,
        "channels": "BGR",
        "subtracted": list(vgg19.MEAN_BGR),
        "scale": 1,
    }
    return {
        "kind": spec.kind,
        "layer": spec.layer,
        "images": values,
        **({"preprocessing": preprocessing} if spec.kind == "encoder" else {}),
        "features": {"channels": spec.channels, "stride": spec.downsampling},
        "positions": {
            "layout": "uint8, (B, H/stride, W/stride, channels): 2 * dy + dx of the maximum in its "
            "2x2 window",
            **{
                block.switches_name: {"channels": block.channels, "stride": 2**block.number}
                for block in spec.pooled
            },
        },
        "license": found.license.name,
        "archive_sha256": stated["archive"]["sha256"],
        "weights_sha256": stated["weights"]["layers"],
        "made_with": f"unpooling-encoders {__version__}",
    }


def publish(
    folder: str,
    repository: str | None = None,
    private: bool = False,
    dry_run: bool = False,
    formats: Sequence[str] = (),
) -> None:
    """Sends an artifact to Hugging Face, or prints what would be sent.

    Args:
      folder: the artifact's folder.
      repository: OWNER/NAME; None for publisher and name on the card, and the build.
      private: whether the repository is made as a private one; a public one is then refused.
      dry_run: whether to print only.
      formats: which of `FORMATS` are sent, too.

    Raises what `hosting.publish` does.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UserError(f"--formats must be some of {', '.join(FORMATS)}. Received: {unknown[0]}.")
    hosting.publish(HuggingFace(private, formats), folder, repository, dry_run)


if __name__ == "__main__":
    hosting.define_flags()
    flags.DEFINE_string(
        "repository", None, "OWNER/NAME; by default publisher and name on the card."
    )
    flags.DEFINE_bool(
        "private", False, "Whether to make a private repository, and refuse a public one."
    )
    flags.DEFINE_list("formats", [], f"What to send, too: some of {', '.join(FORMATS)}.")
    cli.run(
        "publish.huggingface",
        lambda: publish(
            FLAGS.artifact, FLAGS.repository, FLAGS.private, FLAGS.dry_run, FLAGS.formats
        ),
        interrupted=hosting.INTERRUPTED,
    )
