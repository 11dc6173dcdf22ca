"""Trains the decoder of an unpooling encoder.

    python train_decoder.py --layer=block3_conv2 --weights=imagenet --photos=FOLDER

writes into OUTPUT_DIR/vgg19-block3-conv2-decoder/:

    decoder.h5       the weights, for build_decoder.py, how they were trained, and how good they are
    history.csv      losses and metrics of each epoch
    tensorboard/     the same, as curves
    samples/         pictures held out from training, above their reconstructions
    run.json         what the run was asked for

Interrupted and started again with the same flags, it goes on after the last finished epoch.
"""

import contextlib
import math
import os
import sys

from absl import flags

from export import command, vgg19
from training import options

FLAGS = flags.FLAGS
_NAME = "train_decoder"

flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which the encoder ends.")
flags.DEFINE_string(
    "weights",
    "imagenet",
    "The encoder's: `imagenet` (downloaded by keras.applications), `random`, or the path of an "
    ".h5 file in the layout of Keras' published VGG19 files.",
)
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
flags.DEFINE_integer(
    "seed", 0, "Of random weights, order, crops and flips.", lower_bound=0, upper_bound=2**63 - 1
)
flags.DEFINE_enum(
    "optimizer",
    "adam",
    options.OPTIMIZERS,
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
    options.PRECISIONS,
    "Of the convolutions of a training step. Weights, losses and validation are float32.",
)
flags.DEFINE_enum(
    "initial_kernels",
    "mirrored",
    options.INITIAL_KERNELS,
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
    options.STRATEGIES,
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

flags.register_validator("weights", bool, message="must not be empty")
flags.register_multi_flags_validator(
    ["layer", "crop"],
    lambda values: values["crop"] % vgg19.downsampling(values["layer"]) == 0,
    message="--crop must be a multiple of 2^(K-1) for --layer=blockK_conv2, which halves K-1 times",
)
flags.register_multi_flags_validator(
    ["crop", "ms_ssim_weight"],
    lambda values: not values["ms_ssim_weight"] or values["crop"] >= options.MULTI_SCALE_CROP,
    message=f"MS-SSIM halves pictures four times: --crop must be >= {options.MULTI_SCALE_CROP}, "
    "or pass --ms_ssim_weight=0 to do without it",
)
flags.register_multi_flags_validator(
    ["l1_weight", "l2_weight", "ms_ssim_weight", "perceptual_weight"],
    lambda values: any(values.values()),
    message="at least one of the weights of the loss must be above 0",
)

_SHAPING = """layer weights photos epochs steps_per_epoch batch_size crop seed optimizer
    learning_rate final_learning_rate warm_up l1_weight l2_weight ms_ssim_weight perceptual_weight
    precision initial_kernels initial_weights strategy evaluation_pictures""".split()

_SAMPLES = 4  # pictures, drawn after each epoch


def main() -> int:
    return command.run_tensorflow(
        _NAME,
        lambda: print(f"done: {train()}"),
        interrupted="the same flags go on after the last epoch.",
    )


def train() -> str:
    """Trains what the flags ask for and returns the path of the decoder's weights."""
    from training import distribution

    strategy = distribution.make_strategy(FLAGS.strategy)  # Before anything else of TensorFlow.
    chief = distribution.is_chief(strategy)

    from export import weights
    from training import callbacks, data, run

    distribution.check_batch_size(strategy, FLAGS.batch_size)
    print(f"weights: {FLAGS.weights}", flush=True)
    encoder = weights.load(FLAGS.weights, FLAGS.layer, FLAGS.seed)
    splits = data.usable_splits(FLAGS.photos)
    steps = FLAGS.steps_per_epoch or -(-len(splits["train"]) // FLAGS.batch_size)
    settings = _settings(encoder, splits, steps)

    folder = run.Run(os.path.join(FLAGS.output_dir, f"{vgg19.model_name(FLAGS.layer)}-decoder"))
    with folder.locked() if chief else contextlib.nullcontext():
        with distribution.together(strategy):
            resumed = folder.check(settings, FLAGS.overwrite) if chief else True
            feature_scale, layers = _start(encoder.layers, splits["train"])
            if not resumed:
                folder.begin(settings)
        # Only now: worker 0 may have removed what an earlier run left.
        first = callbacks.finished_epochs(folder.backup)
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
                training = _training(encoder, model, settings, folder.last_metrics())
                training["evaluation"] = _evaluation(encoder.layers, layers, splits)
                weights.save(folder.decoder, layers, training)
                folder.end()
    return folder.decoder


def _start(encoder_layers, paths):
    """The scale of features, measured on the first batch, and the decoder's first weights."""
    from training import data, initial
    from training.model import root_mean_square

    images = next(iter(data.training_batches(paths, FLAGS.crop, FLAGS.batch_size, FLAGS.seed)))
    layers, taken = initial.initial_layers(
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
    from training import losses, schedule
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
        learning_rate = schedule.linear(
            FLAGS.learning_rate, FLAGS.final_learning_rate, count, round(FLAGS.warm_up * count)
        )
        last = vgg19.convolutions(FLAGS.layer, "decoder")[-1].name
        optimizer = schedule.optimizer(FLAGS.optimizer, learning_rate, last)
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
    # JSON has no NaN, which SSIM is when all are tiny, nor infinity.
    return {
        "photographs": len(rows),
        **{name: value for name, value in means.items() if math.isfinite(value)},
    }


def _digest(layers):
    from export import checksums

    digests = "".join(checksums.layer_sha256(*pair) for pair in layers.values())
    return checksums.digest(digests.encode())["sha256"]


def _settings(encoder, splits, steps):
    """All on which the result depends, to be compared when a run is gone on with."""
    from export import checksums

    digests = {name: checksums.layer_sha256(*pair) for name, pair in encoder.layers.items()}
    return {
        **{name: FLAGS[name].value for name in _SHAPING},
        "steps_per_epoch": steps,
        "photographs": {split: len(paths) for split, paths in splits.items()},
        "encoder_sha256": digests,
    }


def _training(encoder, model, settings, metrics):
    """What decoder.h5 says of how it was trained, without any folder."""
    import keras

    settings = dict(settings)
    for name in ("photos", "weights", "initial_weights"):
        settings[name] = settings[name] and os.path.basename(os.path.normpath(settings[name]))
    digests = settings.pop("encoder_sha256")
    photographs = settings.pop("photographs")
    return {
        "layer": FLAGS.layer,
        "encoder": {"source": encoder.source, "seed": encoder.seed, "sha256": digests},
        "flags": settings,
        "photographs": photographs,
        "epochs": FLAGS.epochs,
        "steps": FLAGS.epochs * settings["steps_per_epoch"],
        "feature_scale": float(keras.ops.convert_to_numpy(model.feature_scale)),
        "validation": {
            name.removeprefix("val_"): value
            for name, value in metrics.items()
            if name.startswith("val_")
        },
    }


if __name__ == "__main__":
    command.run(_NAME, main)
