"""Publishes an artifact on Kaggle Models with `kagglehub`.

    python -m publish.kaggle --artifact=dist/vgg19-block5-conv2 --dry_run

sends the unpacked SavedModel, its manifest, diagram and card as a new version of

    OWNER/vgg19-unpooling-encoder/tensorFlow2/block5-conv2

which `hub.KerasLayer(kagglehub.model_download(...))` loads. kagglehub finds the user's credentials
by itself: https://github.com/Kaggle/kagglehub#authenticate.
"""

from absl import flags

from export import cli
from publish import hosting

__all__ = ["Kaggle", "publish"]

FLAGS = flags.FLAGS


class Kaggle(hosting.Host):
    """Kaggle Models. Each build for a layer is a variation of its own."""

    name = "Kaggle"
    key = "kaggle"
    form = r"[\w-]+/[\w-]+/tensorFlow2/[\w-]+"
    wanted = (
        "--handle must be OWNER/MODEL/tensorFlow2/VARIATION, without a version, which Kaggle counts"
    )
    download = 'kagglehub.model_download("{}")'
    credentials = "https://github.com/Kaggle/kagglehub#authenticate"

    def default(self, publisher, spec):
        variation = spec.layer.replace("_", "-") + hosting.variation(spec)
        return f"{publisher}/vgg19-unpooling-{spec.kind}/tensorFlow2/{variation}"

    def facts(self, client, place, found):
        return {
            "to": f"https://www.kaggle.com/models/{place}",
            "license": found.license.kaggle,
            "notes": hosting.notes(found),
        }

    def upload(self, client, place, folder, facts):
        client.model_upload(place, folder, facts["license"], facts["notes"])

    def errors(self):
        import requests
        from kagglehub import exceptions as known

        refused = (known.CredentialError, known.UnauthenticatedError, known.NotFoundError)
        return (requests.RequestException, ConnectionError, known.BackendError, *refused)


def publish(folder: str, handle: str | None = None, dry_run: bool = False) -> None:
    """Sends an artifact to Kaggle Models, or prints what would be sent.

    Args:
      folder: the artifact's folder.
      handle: OWNER/MODEL/tensorFlow2/VARIATION; None for the publisher's, by layer and build.
      dry_run: whether to print only.

    Raises what `hosting.publish` does.
    """
    hosting.publish(Kaggle(), folder, handle, dry_run)


if __name__ == "__main__":
    hosting.define_flags()
    flags.DEFINE_string(
        "handle", None, "OWNER/MODEL/tensorFlow2/VARIATION; by default from card and manifest."
    )
    cli.run("publish.kaggle", lambda: publish(FLAGS.artifact, FLAGS.handle, FLAGS.dry_run))
