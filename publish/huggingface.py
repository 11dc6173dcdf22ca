"""Publishes an artifact on Hugging Face with `huggingface_hub`.

    python -m publish.huggingface --artifact=dist/vgg19-block5-conv2 --dry_run

sends the unpacked SavedModel, its manifest, diagram and model card as one commit to the repository
OWNER/vgg19-block5-conv2-unpooling-encoder, which
`hub.KerasLayer(huggingface_hub.snapshot_download(...))` loads. huggingface_hub finds the user's
token by itself: https://huggingface.co/docs/huggingface_hub/quick-start#authentication.
"""

import dataclasses

from absl import flags

from export import cli
from publish import hosting
from unpooling import __version__

__all__ = ["HuggingFace", "publish"]

FLAGS = flags.FLAGS


@dataclasses.dataclass
class HuggingFace(hosting.Host):
    """Hugging Face. Each build for a layer has a repository of its own."""

    name = "Hugging Face"
    key = "huggingface"
    form = r"[\w-][\w.-]*/[\w-][\w.-]*"
    wanted = "--repository must be OWNER/NAME"
    download = 'huggingface_hub.snapshot_download("{}")'
    credentials = "https://huggingface.co/docs/huggingface_hub/quick-start#authentication"

    private: bool = False

    def default(self, publisher, spec):
        return f"{publisher}/{spec.name}{hosting.variation(spec)}"

    def facts(self, client, place, found):
        return {
            "to": f"{client.HfApi().endpoint}/{place}",
            "if new": "private" if self.private else "public",
            "commit": f"{found.page.name}/{found.page.version}",
            "notes": hosting.notes(found),
        }

    def upload(self, client, place, folder, facts):
        api = client.HfApi(library_name="unpooling-encoders", library_version=__version__)
        api.create_repo(place, private=self.private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=place,
            folder_path=folder,
            commit_message=facts["commit"],
            commit_description=facts["notes"],
            delete_patterns="variables/*",  # Another version's may have other names.
        )
        print(commit.commit_url)

    def errors(self):
        from huggingface_hub import errors as known

        refused = (known.HFValidationError, known.LocalTokenNotFoundError)
        return (known.HTTPError, ConnectionError, *refused)


def publish(
    folder: str, repository: str | None = None, private: bool = False, dry_run: bool = False
) -> None:
    """Sends an artifact to Hugging Face, or prints what would be sent.

    Args:
      folder: the artifact's folder.
      repository: OWNER/NAME; None for publisher and name on the card, and the build.
      private: whether the repository is private if it has to be made.
      dry_run: whether to print only.

    Raises what `hosting.publish` does.
    """
    hosting.publish(HuggingFace(private), folder, repository, dry_run)


if __name__ == "__main__":
    hosting.define_flags()
    flags.DEFINE_string(
        "repository", None, "OWNER/NAME; by default publisher and name on the card."
    )
    flags.DEFINE_bool("private", False, "Whether a new repository is private.")
    cli.run(
        "publish.huggingface",
        lambda: publish(FLAGS.artifact, FLAGS.repository, FLAGS.private, FLAGS.dry_run),
    )
