"""Publishes an artifact on Kaggle Models, by `kagglehub`.

    python -m publish.kaggle --artifact=dist/vgg19-block5-conv2 --dry_run

sends the unpacked SavedModel, its manifest, diagram and card as a new version of

    OWNER/vgg19-unpooling-encoder/tensorFlow2/block5-conv2

from where `hub.KerasLayer(kagglehub.model_download(...))` loads it. kagglehub finds the user's
credentials by itself: https://github.com/Kaggle/kagglehub#authenticate.
"""

import re

from absl import flags

from export import cli
from publish import hosting, tree

__all__ = ["default_handle", "publish"]

FLAGS = flags.FLAGS
_NAME = "publish.kaggle"

FRAMEWORK = "tensorFlow2"

# A licence of the hub's tags, in Kaggle's words:
# https://github.com/Kaggle/kaggle-api/blob/main/docs/models_metadata.md
_LICENSES = {"mit": "MIT"}

_HANDLE = re.compile(rf"[\w-]+/[\w-]+/{FRAMEWORK}/[\w-]+", re.ASCII)


def default_handle(module: tree.Module) -> str:
    """Returns OWNER/MODEL/FRAMEWORK/VARIATION for an artifact: the layer makes the variation."""
    stated = module.manifest
    parts = [stated["layer"].replace("_", "-")]
    if stated["index_dtype"] == "int32":
        parts.append("int32")
    if stated["pooling"] == "xla":
        parts.append("xla")
    model = f"vgg19-unpooling-{module.kind}"
    return f"{module.page.publisher}/{model}/{FRAMEWORK}/{'-'.join(parts)}"


def publish(artifact: str, handle: str | None, dry_run: bool) -> None:
    """Sends an artifact to Kaggle Models, or prints what would be sent.

    Args:
      artifact: the artifact's folder.
      handle: OWNER/MODEL/tensorFlow2/VARIATION; None for `default_handle`.
      dry_run: whether to print only.

    Raises:
      ModuleNotFoundError: if kagglehub is not installed.
      ValueError: if the artifact is not complete or the handle is in another form.
      OSError: if a file cannot be read.
      ConnectionError: if Kaggle could not be reached or refused. The call can be repeated.
    """
    try:
        import kagglehub
        from kagglehub.handle import parse_model_handle
    except ImportError as error:
        raise ModuleNotFoundError(
            f"this needs kagglehub ({error}): pip install kagglehub"
        ) from error
    module = tree.read_module(artifact)
    handle = handle or default_handle(module)
    if not _HANDLE.fullmatch(handle):
        raise ValueError(
            f"--handle must be OWNER/MODEL/{FRAMEWORK}/VARIATION, without a version, which Kaggle "
            f"counts. Received: {handle}."
        )
    facts = {
        "to": parse_model_handle(handle).to_url(),
        "licence": _LICENSES[module.page.metadata["license"][0]],
        "notes": hosting.notes(module),
    }
    handles = {
        # Of a decoder's encoder: where it goes by default, as it is built by default.
        "encoder": default_handle(module).replace("-decoder/", "-encoder/"),
        module.kind: handle,
    }
    downloads = {k: f'kagglehub.model_download("{h}")' for k, h in handles.items()}
    readme = hosting.readme(module, "kagglehub", downloads)
    with hosting.contents(module, readme) as folder:
        print(hosting.listing(folder, facts), flush=True)
        if dry_run:
            print(f"\n{hosting.README}:\n\n{readme}")
            return
        try:
            kagglehub.model_upload(
                handle, folder, license_name=facts["licence"], version_notes=facts["notes"]
            )
        except Exception as error:  # kagglehub raises requests' errors, and some of its own.
            raise ConnectionError(
                f"Kaggle has not taken {handle}: {hosting.explain(error)}. Nothing here was "
                "changed; the command can be repeated. For credentials that Kaggle accepts, see "
                "https://github.com/Kaggle/kagglehub#authenticate"
            ) from error


def main() -> int:
    hosting.hide_signatures()
    try:
        publish(FLAGS.artifact, FLAGS.handle, FLAGS.dry_run)
    except (ImportError, ValueError, OSError) as error:
        return cli.fail(_NAME, str(error))
    print("dry run: nothing was sent" if FLAGS.dry_run else "done")
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("artifact", "dist/vgg19-block5-conv2", "The artifact's folder.")
    flags.DEFINE_string(
        "handle", None, f"OWNER/MODEL/{FRAMEWORK}/VARIATION; by default from card and manifest."
    )
    flags.DEFINE_bool("dry_run", False, "Whether to print what would be sent, and send nothing.")
    cli.run(_NAME, main)
