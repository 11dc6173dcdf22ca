"""Shows how good decoders are: tables, curves, errors by photograph, the worst photographs.

    python -m training.report --weights=vgg19.h5 --runs=runs --output_dir=docs \\
        --set=bsds=photos --set=imagenet=photos/imagenet --set=coco=photos-coco:all

measures the decoder of each finished run in --runs, and for other layers the one that ships, on
each set of photographs and on scikit-image's. It prints tables of the means, and writes

    errors.csv             the figures of each photograph
    errors.png             how many photographs have which error; the error against depth
    worst.jpg              the photographs of one set with the greatest errors, and where these are
    curves.png             the error on validation pictures after each epoch
    reconstructions.jpg    a photograph and a part of it, and what each decoder makes of it

A photograph that cannot be measured is named and left out; the exit status is then 1.
"""

import dataclasses
import os
import tempfile
from collections.abc import Sequence

import numpy as np
from absl import flags
from skimage import data

from export import cli
from training import charts, panels, photo_sets
from training.console import say
from training.evaluate import PUBLISHED_ERRORS, evaluate, means, write_rows
from training.run_folder import RunFolder
from unpooling import padding, tiling, vgg19, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError, one_line
from unpooling.pictures import read_picture
from unpooling.training_record import TrainingRecord

__all__ = ["report"]

FLAGS = flags.FLAGS

_WORST = 5  # photographs of each layer

_OUTPUTS = ("errors.csv", "errors.png", "worst.jpg", "curves.png", "reconstructions.jpg")


@dataclasses.dataclass
class _Trained:
    """A decoder, and how it was trained.

    Attributes:
      encoder, decoder: the weights of the pair.
      record: the decoder's.
      errors: those on validation pictures after each epoch; empty for a decoder that ships.
    """

    layer: str
    encoder: weights.Weights
    decoder: weights.Weights
    record: TrainingRecord
    errors: list[float]

    @property
    def curve(self):
        """Steps and errors after each epoch."""
        number = len(self.errors)
        return [self.record.steps * (n + 1) // number for n in range(number)], self.errors

    def reconstruct(self, picture, dtype):
        """Returns what becomes of (H, W, 3), uint8."""
        decoded = np.empty(picture.shape, dtype)
        pair = Encoder(self.layer, self.encoder.layers), Decoder(self.layer, self.decoder.layers)
        tiling.reconstruct(*pair, picture[np.newaxis], out=decoded[np.newaxis])
        return decoded


def report(
    runs: str,
    encoder: str,
    output_dir: str,
    *,
    seed: int = 0,
    photo: str | None = None,
    sets: Sequence[str] = (),
    worst_of: str = photo_sets.SCIKIT_IMAGE,
) -> tuple[str, list[str]]:
    """Measures decoders, draws the pictures, and returns the tables in Markdown.

    Args:
      runs: the folder of the runs.
      encoder: the encoder's weights, as for `weights.load`, with `seed`.
      output_dir: the folder for the pictures, made if need be.
      photo: the path of the photograph to show; None for scikit-image's coffee.
      sets: what is measured beside scikit-image's photographs, see `photo_sets.find_sets`.
      worst_of: the set whose worst photographs are drawn.

    Returns:
      The tables, and the paths of photographs that could not be measured.

    Raises:
      UserError: if there is no decoder, one of them lacks what is to be shown, a set is not as
        `photo_sets.find_sets` says, or `output_dir` may not be written.
      OSError: if `output_dir` cannot be made.
    """
    outputs = [os.path.join(output_dir, name) for name in _OUTPUTS]
    found = photo_sets.find_sets(sets)
    if worst_of not in (*found, photo_sets.SCIKIT_IMAGE):
        raise UserError(f"--worst_of={worst_of} is not the name of a set.")
    inputs = [path for _, paths in found.values() for path in paths]
    inputs += [photo] if photo is not None else []
    for path in {*map(os.path.realpath, inputs)} & {*map(os.path.realpath, outputs)}:
        raise UserError(f"{path} would be written over: choose another --output_dir.")
    picture = data.coffee() if photo is None else read_picture(photo)
    decoders = _find_decoders(runs, encoder, seed)
    os.makedirs(output_dir, exist_ok=True)
    if not os.access(output_dir, os.W_OK | os.X_OK):
        raise UserError(f"{output_dir} may not be written: choose another --output_dir.")
    rows, left_out, worst = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        found[photo_sets.SCIKIT_IMAGE] = folder, photo_sets.write_scikit_image(folder)
        for trained in decoders:
            pair = trained.encoder, trained.decoder
            for name, (start, paths) in found.items():
                say(f"{trained.layer}, {name}:")
                measured, others = evaluate(trained.layer, *pair, paths, start)
                if not measured:
                    raise UserError(f"no photograph of {name} can be measured; see above.")
                rows += [{"set": name, "layer": trained.layer, **row} for row in measured]
                left_out += others
                if name == worst_of:
                    worst[trained.layer] = _worst(trained, measured, start)
    errors_csv, errors_png, worst_jpeg, curves_png, reconstructions_jpeg = outputs
    write_rows(errors_csv, rows)
    charts.draw_errors(errors_png, rows)
    panels.draw_worst(worst_jpeg, worst)
    if curves := {trained.layer: trained.curve for trained in decoders if trained.errors}:
        charts.draw_curves(curves_png, curves)
    decoded = {t.layer: panels.reduced(t.reconstruct(picture, np.uint8)) for t in decoders}
    panels.draw_panels(reconstructions_jpeg, {"photograph": panels.reduced(picture), **decoded})
    return "\n".join([*_errors_table(decoders, rows), "", *_means_table(rows)]), left_out


def _find_decoders(runs, encoder, seed):
    """The decoders of finished runs, and for other layers those that ship."""
    found, shipped = [], weights.pretrained_decoders()
    for layer in vgg19.LAYERS:
        folder = RunFolder(runs, layer)
        if not (folder.is_finished() or layer in shipped):
            continue
        loaded, path, errors = weights.load(encoder, layer, seed), shipped.get(layer), []
        if folder.is_finished():
            path = folder.decoder
            errors = [row["val_l1"] for row in folder.metrics() if "val_l1" in row]
        decoder = weights.load_decoder(path, layer)
        weights.check_pair(loaded, decoder, path)
        record = decoder.training
        if not (record and "crop" in record.flags and (errors or path in shipped.values())):
            raise UserError(
                f"{folder.directory} does not say how its decoder was trained: train it again, "
                "with an --l1_weight."
            )
        found.append(_Trained(layer, loaded, decoder, record, errors))
    if not found:
        raise UserError(f"{runs} holds no trained decoder: make one with train_decoder.py.")
    return found


def _worst(trained, rows, folder):
    """The photographs with the greatest errors, as `panels.draw_worst` takes them."""
    shown = []
    for row in sorted(rows, key=lambda row: -row["error"])[:_WORST]:
        picture = read_picture(os.path.join(folder, row["picture"]))
        picture = padding.cut(picture, vgg19.downsampling(trained.layer))
        caption = f"{os.path.basename(row['picture'])}: {row['error']:.2f}"
        shown.append((one_line(caption), picture, trained.reconstruct(picture, np.float32)))
    return shown


def _errors_table(decoders, rows):
    names = list(dict.fromkeys(row["set"] for row in rows))
    yield f"| decoder | published, on COCO | {' | '.join(names)} | steps | pixels a step |"
    yield "|---" * (len(names) + 4) + "|"
    for trained in decoders:
        cells = [f"{_of(rows, trained.layer, name)[1]['error']:.3f}" for name in names]
        batch, crop = (trained.record.flags[name] for name in ("batch_size", "crop"))
        yield (
            f"| `{trained.layer}` | {PUBLISHED_ERRORS[trained.layer]:.3f} | {' | '.join(cells)} "
            f"| {trained.record.steps:,} | {batch} x {crop}² |"
        )


def _means_table(rows):
    yield "| photographs | decoder | number | error | clipped | PSNR, dB | SSIM |"
    yield "|---|---|---|---|---|---|---|"
    for name, layer in dict.fromkeys((row["set"], row["layer"]) for row in rows):
        number, mean = _of(rows, layer, name)
        yield (
            f"| {name} | `{layer}` | {number} | {mean['error']:.3f} | {mean['clipped_error']:.3f} "
            f"| {mean['psnr']:.2f} | {mean['ssim']:.4f} |"
        )


def _of(rows, layer, name):
    """The number of photographs of a set, and the means of a decoder on them."""
    rows = [row for row in rows if row["layer"] == layer and row["set"] == name]
    return len(rows), means(rows)


def main() -> int:
    names = ("runs", "weights", "output_dir")
    named = ("seed", "photo", "worst_of")
    text, left_out = report(
        *(FLAGS[name].value for name in names),
        sets=FLAGS["set"].value,
        **{name: FLAGS[name].value for name in named},
    )
    say(text)
    return cli.fail("report", f"{len(left_out)} left out; see above.") if left_out else 0


def _define_flags():
    cli.define_weights_flags()
    flags.adopt_module_key_flags(cli)  # So that --help lists them.
    flags.DEFINE_string("runs", "runs", "The folder of the training runs.")
    flags.DEFINE_multi_string(
        "set",
        [],
        "Photographs to measure, NAME=FOLDER or NAME=FOLDER:SPLIT; may be passed several times.",
    )
    flags.DEFINE_string(
        "worst_of", photo_sets.SCIKIT_IMAGE, "The set whose worst photographs are shown."
    )
    flags.DEFINE_string("photo", None, "The photograph to show. Default: scikit-image's coffee.")
    flags.DEFINE_string("output_dir", "docs", "The folder for the pictures.")


if __name__ == "__main__":
    _define_flags()
    cli.run("report", main)
