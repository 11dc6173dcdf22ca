"""Publishes an artifact on Kaggle Models with `kagglehub`.

    python -m publish.kaggle --artifact=dist/vgg19-block5-conv2 --framework=keras --dry_run

sends the module in the form of a framework, its manifest, diagram and card as a new version of

    OWNER/vgg19-unpooling-encoder/keras/block5-conv2

and the usage from the card as the variation's. kagglehub finds the user's credentials by itself:
https://github.com/Kaggle/kagglehub#authenticate.
"""

import dataclasses
import os

from absl import flags

from export import cli
from publish import hosting
from unpooling.errors import UserError

__all__ = ["FRAMEWORKS", "Kaggle", "publish"]

FLAGS = flags.FLAGS

# Kaggle's names, and the form of the module: "saved_model", or one of `export.formats`'s.
FRAMEWORKS = {"tensorFlow2": "saved_model", "keras": "keras", "tfLite": "litert"}


@dataclasses.dataclass
class Kaggle(hosting.Host):
    """Kaggle Models. Each build for a layer is a variation of its own, for each framework."""

    name = "Kaggle"
    key = "kaggle"
    credentials = "https://github.com/Kaggle/kagglehub#authenticate"

    framework: str = "tensorFlow2"

    @property
    def form(self):
        return rf"[\w-]+/[\w-]+/{self.framework}/[\w-]+"

    @property
    def wanted(self):
        return (
            f"--handle must be OWNER/MODEL/{self.framework}/VARIATION, without a version, which "
            "Kaggle counts"
        )

    def default(self, publisher, spec):
        variation = spec.layer.replace("_", "-") + hosting.variation(spec)
        return f"{publisher}/vgg19-unpooling-{spec.kind}/{self.framework}/{variation}"

    def facts(self, client, place, found):
        return {
            "to": f"https://www.kaggle.com/models/{place}",
            "license": found.license.kaggle,
            "notes": hosting.notes(found),
        }

    def downloads(self, kind, place):
        form, folder = FRAMEWORKS[self.framework], f'kagglehub.model_download("{place}")'
        if form == "saved_model":
            return {form: folder}
        return {form: f'{folder} + "/{hosting.file_name(kind, form)}"'}

    def add_files(self, folder, found):
        form = FRAMEWORKS[self.framework]
        if form == "saved_model":
            hosting.unpack(found, folder)
        else:
            file = hosting.file_name(found.spec.kind, form)
            hosting.convert(found, form, os.path.join(folder, file))
        return {}

    def upload(self, client, place, folder, facts):
        client.model_upload(place, folder, facts["license"], facts["notes"])
        print("the version is there; its description and usage follow", flush=True)
        with open(os.path.join(folder, "README.md"), encoding="utf-8") as file:
            _describe(place, file.read(), facts["license"], self.framework != "tfLite")

    def errors(self):
        import requests
        from kagglehub import exceptions as known

        refused = (known.CredentialError, known.UnauthenticatedError, known.NotFoundError)
        return (requests.RequestException, ConnectionError, known.BackendError, *refused)


def _describe(place: str, readme: str, license: str, fine_tunable: bool) -> None:
    """Makes the description and the usage of a card those of a variation.

    `kagglehub` itself sends files and, with the first ones, the license.
    """
    from google.protobuf.field_mask_pb2 import FieldMask
    from kagglehub import clients, exceptions, handle
    from kagglesdk.models.types.model_api_service import ApiUpdateModelInstanceRequest

    parsed, request = handle.parse_model_handle(place), ApiUpdateModelInstanceRequest()
    request.owner_slug, request.model_slug = parsed.owner, parsed.model
    request.framework, request.instance_slug = parsed.framework_enum(), parsed.variation
    request.overview = readme.split("\n\n")[1]
    request.usage = readme.partition("\n## Usage\n\n")[2].partition("\n## ")[0]
    request.license_name, request.fine_tunable = license, fine_tunable
    request.update_mask = FieldMask(paths=["overview", "usage", "license_name", "fine_tunable"])
    with clients.build_kaggle_client() as client:
        api = client.models.model_api_client
        exceptions.handle_mutate_call(lambda: api.update_model_instance(request))


def publish(
    folder: str, handle: str | None = None, dry_run: bool = False, framework: str = "tensorFlow2"
) -> None:
    """Sends an artifact to Kaggle Models, or prints what would be sent.

    Args:
      folder: the artifact's folder.
      handle: OWNER/MODEL/FRAMEWORK/VARIATION; None for the publisher's, by layer and build.
      dry_run: whether to print only.
      framework: one of `FRAMEWORKS`.

    Raises what `hosting.publish` does.
    """
    if framework not in FRAMEWORKS:
        raise UserError(
            f"--framework must be one of {', '.join(FRAMEWORKS)}. Received: {framework}."
        )
    hosting.publish(Kaggle(framework), folder, handle, dry_run)


if __name__ == "__main__":
    hosting.define_flags()
    flags.DEFINE_string(
        "handle", None, "OWNER/MODEL/FRAMEWORK/VARIATION; by default from card and manifest."
    )
    flags.DEFINE_enum(
        "framework", "tensorFlow2", list(FRAMEWORKS), "In which form the module is sent."
    )
    cli.run(
        "publish.kaggle",
        lambda: publish(FLAGS.artifact, FLAGS.handle, FLAGS.dry_run, FLAGS.framework),
        interrupted=hosting.INTERRUPTED,
    )
