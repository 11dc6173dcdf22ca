"""The license of a module's weights. The code is MIT; weights are licensed by their authors.

| weights | license |
|---|---|
| random | MIT, like the code that draws them |
| Keras' ImageNet weights, and decoders trained for an encoder with these | CC BY 4.0 |
| a file | what the publisher states with `--license`; otherwise the next two rows |
| a file that may hold ImageNet's weights, or may derive from them | CC BY 4.0 |
| any other file | MIT, as the publisher's own work |

A file for an encoder may hold ImageNet's weights unless `--dataset` names another data set. A
decoder's file may derive from them if its training record names an encoder that was not random.
"""

from collections.abc import Mapping
from typing import NamedTuple

from unpooling.errors import UserError

__all__ = ["AUTHORS", "LICENSES", "NAMES", "License", "of"]

# Of VGG19's ImageNet weights; CC BY 4.0 asks to name them.
AUTHORS = "K. Simonyan and A. Zisserman, Visual Geometry Group, University of Oxford"


class License(NamedTuple):
    """A license by its names in different places.

    Kaggle's are listed in https://github.com/Kaggle/kaggle-cli/blob/main/docs/models_metadata.md.
    """

    name: str  # SPDX's identifier in lower case, which Hugging Face uses, too
    title: str  # in a sentence
    hub: str  # the tag of TensorFlow Hub's pages; `custom` where it has none
    kaggle: str


_NON_COMMERCIAL = "Attribution-NonCommercial 4.0 International (CC BY-NC 4.0)"
LICENSES = {
    license.name: license
    for license in (
        License("mit", "MIT", "mit", "MIT"),
        License("cc-by-4.0", "CC BY 4.0", "custom", "Attribution 4.0 International (CC BY 4.0)"),
        License("cc-by-nc-4.0", "CC BY-NC 4.0", "cc-by-nc-4.0", _NON_COMMERCIAL),
        License("apache-2.0", "Apache 2.0", "apache-2.0", "Apache 2.0"),
    )
}
NAMES = tuple(LICENSES)


def of(manifest: Mapping, dataset: str) -> License:
    """Returns the license of a module's weights.

    Args:
      manifest: the module's manifest.
      dataset: what the weights were trained on, a dataset tag of the hub; "other" if unknown.

    Raises:
      UserError: if the publisher states another license than that of ImageNet's weights for a
        decoder which was trained for them.
    """
    kind, weights, stated = manifest["kind"], manifest["weights"], manifest["flags"].get("license")
    origin = weights["source"]
    if kind == "decoder" and origin == "file":
        record = weights.get("training")
        origin = record["encoder"].get("source") if record else "random"
    if origin == "imagenet":
        if weights["source"] == "file" and stated not in (None, "cc-by-4.0"):
            raise UserError(
                f"--license={stated} is not possible: according to the decoder's file, it was "
                "trained for an encoder with ImageNet's weights, which are under cc-by-4.0."
            )
        return LICENSES["cc-by-4.0"]
    if stated in LICENSES and weights["source"] == "file":
        return LICENSES[stated]
    own = kind == "encoder" and dataset != "other" and not dataset.startswith("imagenet")
    return LICENSES["mit" if origin == "random" or own else "cc-by-4.0"]
