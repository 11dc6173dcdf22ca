"""Publishes an artifact on Hugging Face, by `huggingface_hub`.

    python -m publish.huggingface --artifact=dist/vgg19-block5-conv2 --dry_run

sends the unpacked SavedModel, its manifest, diagram and model card as one commit to the repository
OWNER/vgg19-block5-conv2-unpooling-encoder, from where
`hub.KerasLayer(huggingface_hub.snapshot_download(...))` loads it. huggingface_hub finds the user's
token by itself: https://huggingface.co/docs/huggingface_hub/quick-start#authentication.
"""

import logging
import re

from absl import flags

from export import __version__, cli
from publish import hosting, tree

__all__ = ["default_repository", "header", "publish"]

FLAGS = flags.FLAGS
_NAME = "publish.huggingface"

# The tag under which Hugging Face lists modules of TensorFlow Hub.
LIBRARY = "tfhub"
_TASKS = {"encoder": "image-feature-extraction", "decoder": "image-to-image"}

# A dataset of the hub's tags, in Hugging Face's words.
_DATASETS = {
    "imagenet": "ILSVRC/imagenet-1k",
    "imagenet-ilsvrc-2012-cls": "ILSVRC/imagenet-1k",
}

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def default_repository(module: tree.Module) -> str:
    """Returns OWNER/NAME for an artifact: the publisher and the name on its card."""
    return f"{module.page.publisher}/{module.page.name}"


def header(module: tree.Module) -> str:
    """Returns the YAML header by which Hugging Face files a model card."""
    import huggingface_hub

    stated = module.manifest
    datasets = [_DATASETS[d] for d in module.page.metadata["dataset"] if d in _DATASETS]
    tags = ["tensorflow", "saved-model", "vgg19", "unpooling", "style-transfer"]
    if stated["weights"]["source"] == "random":
        tags.append("untrained")
    data = huggingface_hub.ModelCardData(
        license=module.page.metadata["license"][0],
        library_name=LIBRARY,
        pipeline_tag=_TASKS[module.kind],
        tags=tags,
        datasets=datasets or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def publish(artifact: str, repository: str | None, private: bool, dry_run: bool) -> None:
    """Sends an artifact to Hugging Face, or prints what would be sent.

    Args:
      artifact: the artifact's folder.
      repository: OWNER/NAME; None for `default_repository`.
      private: whether the repository, if it has to be made, is for its owner's eyes only.
      dry_run: whether to print only.

    Raises:
      ModuleNotFoundError: if huggingface_hub is not installed.
      ValueError: if the artifact is not complete or the repository's name is in another form.
      OSError: if a file cannot be read.
      ConnectionError: if Hugging Face could not be reached or refused. The call can be repeated.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModuleNotFoundError(
            f"this needs huggingface_hub ({error}): pip install huggingface_hub"
        ) from error
    module = tree.read_module(artifact)
    repository = repository or default_repository(module)
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"--repository must be OWNER/NAME. Received: {repository}.")
    api = huggingface_hub.HfApi(library_name="unpooling-encoders", library_version=__version__)
    facts = {
        "to": f"{api.endpoint}/{repository}",
        "if new": "private" if private else "public",
        "commit": f"{module.page.name}/{module.page.version}",
        "notes": hosting.notes(module),
    }
    repositories = {
        # Of a decoder's encoder: where it goes by default.
        "encoder": default_repository(module).replace("-decoder", "-encoder"),
        module.kind: repository,
    }
    downloads = {
        kind: f'huggingface_hub.snapshot_download("{name}")' for kind, name in repositories.items()
    }
    readme = header(module) + hosting.readme(module, "huggingface_hub", downloads)
    with hosting.contents(module, readme) as folder:
        print(hosting.listing(folder, facts), flush=True)
        if dry_run:
            print(f"\n{hosting.README}:\n\n{readme}")
            return
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message=facts["commit"],
                commit_description=facts["notes"],
                delete_patterns="variables/*",  # Another version's may have other names.
            )
        except Exception as error:  # huggingface_hub raises its HTTP client's errors, and others.
            raise ConnectionError(
                f"Hugging Face has not taken {repository}: {hosting.explain(error)}. Nothing here "
                "was changed; the command can be repeated. For a token that Hugging Face accepts, "
                "see https://huggingface.co/docs/huggingface_hub/quick-start#authentication"
            ) from error
        print(commit.commit_url)


def main() -> int:
    hosting.hide_signatures()
    logging.disable(logging.INFO)  # The HTTP client reports every request.
    try:
        publish(FLAGS.artifact, FLAGS.repository, FLAGS.private, FLAGS.dry_run)
    except (ImportError, ValueError, OSError) as error:
        return cli.fail(_NAME, str(error))
    print("dry run: nothing was sent" if FLAGS.dry_run else "done")
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("artifact", "dist/vgg19-block5-conv2", "The artifact's folder.")
    flags.DEFINE_string(
        "repository", None, "OWNER/NAME; by default publisher and name on the card."
    )
    flags.DEFINE_bool("private", False, "Whether a new repository is private.")
    flags.DEFINE_bool("dry_run", False, "Whether to print what would be sent, and send nothing.")
    cli.run(_NAME, main)
