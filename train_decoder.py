"""Trains the decoder of an unpooling encoder.

    python train_decoder.py --layer=block3_conv2 --weights=imagenet --photos=FOLDER

writes into OUTPUT_DIR/vgg19-block3-conv2-decoder/:

    decoder.h5       the weights, for build_decoder.py, how they were trained, and how good they are
    history.csv      losses and metrics of each epoch
    tensorboard/     the same, as curves
    samples/         pictures held out from training, above their reconstructions
    run_folder.json         what the run was asked for

Interrupted and started again with the same flags, it goes on after the last finished epoch.
"""

import contextlib
import json
import math
import os
import sys

from absl import flags

from export import cli
from training import config
from unpooling import vgg19

FLAGS = flags.FLAGS
_NAME = "train_decoder"

flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which the encoder ends.")
cli.define_weights_flags()
flags.DEFINE_string("photos", None, "The folder with the photographs.", required=True)
flags.DEFINE_string("output_dir", "runs", "The folder in which the run's folder is made.")
flags.DEFINE_integer("epochs", 10, "How many epochs.", lower_bound=1)
flags.DEFINE_integer(
    "steps_per_epoch",
    None,
    "How many batches make an epoch. Default: as many as take every photograph once.",
    lower_bound=1,
)
flags.DEFINE_integer("batch_size", 8, "How many photographs each step takes.", lower_bound=1)
flags.DEFINE_integer(
    "crop", 256, "The side of the random part taken of each photograph, in pixels.", lower_bound=1
)
flags.DEFINE_enum(
    "optimizer",
    "adam",
    config.OPTIMIZERS,
    "What changes the weights: Adam with default parameters, or Muon, which is for kernels.",
)
flags.DEFINE_float("learning_rate", 1e-3, "The learning rate at the start.", lower_bound=0.0)
flags.DEFINE_float("final_learning_rate", 2e-4, "And at the end.", lower_bound=0.0)
flags.DEFINE_float(
    "warm_up",
    0.0,
    "The part of all steps in which the learning rate rises from 0 first.",
    lower_bound=0.0,
    upper_bound=1.0,
)
flags.DEFINE_float("l1_weight", 10.0, "Of the mean absolute error.", lower_bound=0.0)
flags.DEFINE_float("l2_weight", 1.0, "Of the mean squared error.", lower_bound=0.0)
flags.DEFINE_float("ms_ssim_weight", 1000.0, "Of 1 - MS-SSIM.", lower_bound=0.0)
flags.DEFINE_float(
    "perceptual_weight",
    0.1,
    "Of the mean squared difference of the features of picture and reconstruction.",
    lower_bound=0.0,
)
flags.DEFINE_enum(
    "precision",
    "float32",
    config.PRECISIONS,
    "Of the convolutions of a training step. Weights, losses and validation are float32.",
)
flags.DEFINE_enum(
    "initial_kernels",
    "mirrored",
    config.INITIAL_KERNELS,
    "What the decoder begins with: the encoder's kernels, transposed and scaled, or random ones.",
)
flags.DEFINE_string(
    "initial_weights",
    None,
    "The decoder.h5 to begin with, of this layer or another: convolutions of the same names are "
    "taken over, the others are as --initial_kernels says.",
)
flags.DEFINE_enum(
    "strategy",
    "one",
    config.STRATEGIES,
    "One device, all devices of this machine, or the workers that TF_CONFIG names.",
)
flags.DEFINE_integer(
    "evaluation_pictures",
    100,
    "How many of the photographs held out, those of the test split first, are measured as a whole "
    "in the end.",
    lower_bound=1,
)
flags.DEFINE_bool("overwrite", False, "Whether to replace a finished run, or one with other flags.")

flags.adopt_module_key_flags(cli)  # So that --help tells them.

flags.register_validator("photos", bool, message="must be a folder with photographs")
for _name in ("learning_rate", "final_learning_rate", "warm_up", *config.LOSS_WEIGHTS):
    flags.register_validator(_name, math.isfinite, message="must be a finite number")
flags.register_multi_flags_validator(
    ["layer", "crop"],
    lambda values: values["crop"] % vgg19.downsampling(values["layer"]) == 0,
    message="--crop must be a multiple of 2^(K-1) for --layer=blockK_conv2, which halves K-1 times",
)
flags.register_multi_flags_validator(
    ["crop", "ms_ssim_weight"],
    lambda values: not values["ms_ssim_weight"] or values["crop"] >= config.MULTI_SCALE_CROP,
    message=f"MS-SSIM halves pictures four times: --crop must be >= {config.MULTI_SCALE_CROP}, "
    "or pass --ms_ssim_weight=0 to do without it",
)
flags.register_multi_flags_validator(
    config.LOSS_WEIGHTS,
    lambda values: any(values.values()),
    message="at least one of the weights of the loss must be above 0",
)

# What a run depends on; files and folders besides, by their content.
_SHAPING = (
    *"layer epochs batch_size crop seed optimizer learning_rate final_learning_rate".split(),
    *"warm_up precision initial_kernels strategy".split(),
    *config.LOSS_WEIGHTS,
)
_PATHS = ("weights", "photos", "initial_weights")

_SAMPLES = 4  # pictures, drawn after each epoch


def main() -> int:
    return cli.run_tensorflow(
        _NAME,
        lambda: print(f"done: {train()}"),
        interrupted="the same flags go on after the last epoch.",
    )


def train() -> str:
    """Trains what the flags ask for and returns the path of the decoder's weights."""
    from training import distribution

    strategy = distribution.make_strategy(FLAGS.strategy)  # Before anything else of TensorFlow.
    chief = distribution.is_chief(strategy)

    from training import callbacks, data, run_folder
    from unpooling import weights

    folder = run_folder.Run(FLAGS.output_dir, FLAGS.layer)
    with contextlib.ExitStack() as stack:
        with distribution.together(strategy):
            distribution.check_batch_size(strategy, FLAGS.batch_size)
            print(f"weights: {FLAGS.weights}", flush=True)
            encoder = weights.load(FLAGS.weights, FLAGS.layer, FLAGS.seed)
            splits = data.usable_splits(FLAGS.photos)
            steps = FLAGS.steps_per_epoch or -(-len(splits["train"]) // FLAGS.batch_size)
            settings = _settings(encoder, splits, steps)
            if chief:
                stack.enter_context(folder.locked())
            resumed = folder.check(settings, FLAGS.overwrite) if chief else True
            feature_scale, layers = _start(encoder.layers, splits["train"])
            if not resumed:
                folder.begin(settings)
        number = int(_sha256(json.dumps(settings))[:6], 16)
        distribution.same(strategy, "what is to be trained", number)
        # Only now: worker 0 may have removed what an earlier run left.
        first = callbacks.finished_epochs(folder.backup)
        distribution.same(strategy, "how many epochs are behind them", first)
        if first:
            print(f"resumed: after epoch {first}", flush=True)
        if chief:
            folder.trim_history(first)
        model = _make_model(strategy, encoder.layers, layers, feature_scale, steps)
        batches = data.training_batches(
            splits["train"], FLAGS.crop, FLAGS.batch_size, FLAGS.seed, first * steps
        )
        held_out = data.validation_batches(splits["validation"], FLAGS.crop, FLAGS.batch_size)
        model.fit(
            batches,
            epochs=FLAGS.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # The batches come shuffled.
            validation_data=held_out,
            callbacks=_callbacks(folder, splits["validation"], chief),
            verbose="auto" if sys.stdout.isatty() else 2,
        )
        layers = model.decoder_layers()
        # Of several workers, all must say the same.
        print(f"decoder: SHA-256 {_digest(layers)}", flush=True)
        with distribution.together(strategy):
            if chief:
                training = _training(encoder, splits, model, settings, folder.last_metrics())
                weights.save(folder.decoder, layers, training)
                training["evaluation"] = _evaluation(encoder.layers, layers, splits)
                weights.save(folder.decoder, layers, training)
                folder.end()
    return folder.decoder


def _start(encoder_layers, paths):
    """The scale of features, measured on the first batch, and the decoder's first weights."""
    from training import data, initial_weights
    from training.model import root_mean_square

    images = next(iter(data.training_batches(paths, FLAGS.crop, FLAGS.batch_size, FLAGS.seed)))
    layers, taken = initial_weights.initial_layers(
        FLAGS.layer,
        FLAGS.seed,
        FLAGS.initial_kernels,
        FLAGS.initial_weights,
        encoder_layers,
        images,
    )
    if taken:
        print(f"initial weights: {', '.join(taken)}", flush=True)
    return root_mean_square(FLAGS.layer, encoder_layers, images), layers


def _make_model(strategy, encoder_layers, layers, feature_scale, steps):
    """The model, compiled; several workers make it together."""
    from training import losses, optimizers
    from training.model import Reconstruction

    with strategy.scope():
        model = Reconstruction(
            FLAGS.layer,
            encoder_layers,
            layers,
            feature_scale,
            losses.LossWeights(
                FLAGS.l1_weight, FLAGS.l2_weight, FLAGS.ms_ssim_weight, FLAGS.perceptual_weight
            ),
            FLAGS.precision,
        )
        count = FLAGS.epochs * steps
        learning_rate = optimizers.linear(
            FLAGS.learning_rate, FLAGS.final_learning_rate, count, round(FLAGS.warm_up * count)
        )
        last = vgg19.convolutions(FLAGS.layer, "decoder")[-1].name
        optimizer = optimizers.optimizer(FLAGS.optimizer, learning_rate, last)
        model.compile(optimizer=optimizer, jit_compile=False)
        optimizer.build(model.trainable_variables)  # Too late inside a step of several devices.
    return model


def _callbacks(folder, held_out, chief):
    """In this order: nothing is kept of an epoch with numbers that are not finite."""
    import keras

    from training import callbacks, data

    if not chief:
        return [callbacks.RequireFinite(), callbacks.Backup(folder.backup, writes=False)]
    shown = held_out[:_SAMPLES]
    images, _ = next(iter(data.validation_batches(shown, FLAGS.crop, len(shown))))
    return [
        callbacks.RequireFinite(),
        keras.callbacks.CSVLogger(folder.history, append=True),
        callbacks.Curves(folder.tensorboard),
        callbacks.Samples(folder.samples, images),
        callbacks.Backup(folder.backup),
    ]


def _evaluation(encoder_layers, layers, splits):
    """How good the decoder is on whole photographs of which training saw nothing."""
    from training import evaluate

    paths = [*splits["test"], *splits["validation"]][: FLAGS.evaluation_pictures]
    rows = list(evaluate.measure(FLAGS.layer, encoder_layers, layers, paths))
    means = evaluate.summarise(rows)
    published = evaluate.PUBLISHED_ERRORS[FLAGS.layer]
    print(
        f"held out: {len(rows)} photographs, mean absolute error {means['error']:.3f} "
        f"(published: {published:.3f})",
        flush=True,
    )
    # JSON has no NaN, which all are without a picture, and SSIM is for tiny ones; nor infinity.
    return {
        "photographs": len(rows),
        **{name: value for name, value in means.items() if math.isfinite(value)},
    }


def _digest(layers):
    from export import checksums

    return _sha256("".join(checksums.layer_sha256(*pair) for pair in layers.values()))


def _sha256(text):
    from export import checksums

    return checksums.digest(text.encode(errors="surrogateescape"))["sha256"]


def _settings(encoder, splits, steps):
    """All on which the result depends, to be compared when a run is gone on with."""
    named = sorted(
        f"{os.path.basename(path)} {os.path.getsize(path)}"
        for paths in splits.values()
        for path in paths
    )
    return {
        **{name: FLAGS[name].value for name in _SHAPING},
        "steps_per_epoch": steps,
        "encoder_sha256": _digest(encoder.layers),
        "photographs_sha256": _sha256("\n".join(named)),
        "initial_weights_sha256": _file_sha256(FLAGS.initial_weights),
    }


def _file_sha256(path):
    from export import checksums

    try:
        return path and checksums.file_digest(path)["sha256"]
    except OSError:
        return None  # Whoever reads it says what is wrong with it.


def _training(encoder, splits, model, settings, metrics):
    """What decoder.h5 says of how it was trained, without any folder."""
    import keras

    from export import checksums

    digests = {name: checksums.layer_sha256(*pair) for name, pair in encoder.layers.items()}
    paths = {name: FLAGS[name].value for name in _PATHS}
    return {
        "layer": FLAGS.layer,
        "encoder": {"source": encoder.source, "seed": encoder.seed, "sha256": digests},
        "flags": {
            **{n: path and os.path.basename(os.path.normpath(path)) for n, path in paths.items()},
            **{name: value for name, value in settings.items() if name != "encoder_sha256"},
        },
        "photographs": {split: len(found) for split, found in splits.items()},
        "steps": FLAGS.epochs * settings["steps_per_epoch"],
        "feature_scale": float(keras.ops.convert_to_numpy(model.feature_scale)),
        "validation": {
            name.removeprefix("val_"): value
            for name, value in metrics.items()
            if name.startswith("val_")
        },
    }


if __name__ == "__main__":
    cli.run(_NAME, main)
