"""A training run, from photographs to a decoder that has been measured."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import math
import os
import re
import sys

import keras
import numpy as np
import tensorflow as tf

from training import callbacks, data, distribution, evaluate, initial_weights, model, optimizers
from training.config import TrainConfig
from training.console import say
from training.run_folder import RunFolder
from unpooling import vgg19, weights
from unpooling.errors import UserError, one_line
from unpooling.training_record import TrainingRecord

__all__ = ["train"]

# Of these fields the result depends by the content of the files alone, or not at all.
_FILES = ("weights", "photos", "initial_weights")
_UNSHAPING = (*_FILES, "output_dir", "evaluation_pictures", "overwrite")

_SAMPLES = 4  # pictures, drawn after each epoch


def train(config: TrainConfig) -> str:
    """Trains a decoder, measures it, and returns the path of its decoder.h5.

    `RunFolder` says what else the run leaves. Interrupted and called again with the
    same configuration, it is resumed after the last finished epoch.

    Raises:
      UserError: if something that the configuration names cannot be used, another run is in the
        way, or the loss is no longer finite.
    """
    model.check_keras()
    strategy = distribution.make_strategy(config.strategy, config.batch_size)
    chief = distribution.is_chief(strategy)
    folder = RunFolder(config.output_dir, config.layer)
    with contextlib.ExitStack() as stack:
        with distribution.together(strategy):
            say(f"weights: {one_line(config.weights)}")
            encoder = weights.load(config.weights, config.layer, config.seed)
            splits = data.usable_splits(config.photos)
            steps = config.steps_per_epoch or -(-len(splits["train"]) // config.batch_size)
            settings = _settings(config, encoder, splits, steps)
            if chief:
                stack.enter_context(folder.locked())
            resumed = folder.check(settings, config.overwrite) if chief else True
            feature_scale, layers = _start(config, encoder.layers, splits["train"])
            if not resumed:
                folder.begin(settings)
        number = int(_sha256(json.dumps(settings))[:6], 16)
        distribution.check_same(strategy, "what is to be trained", number)
        # Only now: worker 0 may have removed what an earlier run left.
        backup = callbacks.Backup(folder.backup, writes=chief)
        first = backup.finished_epochs()
        distribution.check_same(strategy, "how many epochs are finished", first)
        if first:
            say(f"resumed: after epoch {first}")
        made = _make_model(config, strategy, encoder.layers, layers, feature_scale, steps)
        backup.restore(made)
        batches = data.training_batches(
            splits["train"], config.crop, config.batch_size, config.seed, first * steps
        )
        held_out = data.validation_batches(splits["validation"], config.crop, config.batch_size)
        with _reader_errors():
            made.fit(
                batches,
                initial_epoch=first,
                epochs=config.epochs,
                steps_per_epoch=steps,
                shuffle=False,  # The batches come shuffled.
                validation_data=held_out,
                callbacks=_callbacks(config, folder, splits["validation"], backup, chief),
                verbose="auto" if sys.stdout.isatty() else 2,
            )
        layers = made.decoder_layers()
        # Of several workers, all must print the same.
        say(f"decoder: SHA-256 {_digest(weights.Weights(layers, 'file'))}")
        with distribution.together(strategy):
            if chief:
                scale = float(np.asarray(made.feature_scale))
                record = _record(config, encoder, splits, settings, scale, folder.metrics()[-1])
                weights.save(folder.decoder, layers, record)
                evaluation = _evaluate(config, encoder, folder.decoder, splits)
                record = dataclasses.replace(record, evaluation=evaluation)
                weights.save(folder.decoder, layers, record)
                folder.end()
    return folder.decoder


def _start(config, encoder_layers, paths):
    """The scale of features, measured on the first batch, and the decoder's first weights."""
    with _reader_errors():
        batches = data.training_batches(paths, config.crop, config.batch_size, config.seed)
        images = next(iter(batches))
    layers, copied = initial_weights.initial_layers(
        config.layer,
        config.seed,
        config.initial_kernels,
        config.initial_weights,
        encoder_layers,
        images,
    )
    if copied:
        say(f"initial weights: {', '.join(copied)}")
    return model.root_mean_square(config.layer, encoder_layers, images), layers


def _make_model(config, strategy, encoder_layers, layers, feature_scale, steps):
    """The model, compiled; several workers make it together."""
    count = config.epochs * steps
    last = vgg19.convolutions(config.layer, "decoder")[-1].name
    with strategy.scope():
        made = model.Reconstruction(
            config.layer,
            encoder_layers,
            layers,
            feature_scale,
            config.loss_weights,
            config.precision,
        )
        learning_rate = optimizers.Linear(
            config.learning_rate, config.final_learning_rate, count, round(config.warm_up * count)
        )
        optimizer = optimizers.make_optimizer(config.optimizer, learning_rate, last)
        made.compile(optimizer=optimizer, jit_compile=False)
        optimizer.build(made.trainable_variables)  # Too late inside a step of several devices.
    return made


def _callbacks(config, folder, held_out, backup, chief):
    """In this order: nothing is kept of an epoch with numbers that are not finite."""
    if not chief:
        return [callbacks.RequireFinite()]
    curves = []
    if importlib.util.find_spec("tensorboard"):
        curves.append(keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False))
    else:
        say("no curves: the package tensorboard is not installed")
    shown = held_out[:_SAMPLES]
    images, _ = next(iter(data.validation_batches(shown, config.crop, len(shown))))
    return [
        callbacks.RequireFinite(),
        keras.callbacks.LambdaCallback(on_epoch_end=folder.note),
        *curves,
        callbacks.Samples(folder.samples, images),
        backup,
    ]


@contextlib.contextmanager
def _reader_errors():
    """Turns what TensorFlow makes of a reader's UserError into a UserError again."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError("out of memory: pass a smaller --batch_size or --crop.") from error
    except tf.errors.OpError as error:
        found = re.search(r"UserError: (picture .*)", str(error))
        if not found:
            raise
        raise UserError(found[1]) from error


def _evaluate(config, encoder, path, splits):
    """The means over whole photographs that training saw nothing of."""
    decoder = weights.load_decoder(path, config.layer)
    paths = [*splits["test"], *splits["validation"]][: config.evaluation_pictures]
    rows, means = evaluate.evaluate(config.layer, encoder, decoder, paths)
    say(
        f"held out: {len(rows)} photographs, mean absolute error {means['error']:.3f} "
        f"(published: {evaluate.PUBLISHED_ERRORS[config.layer]:.3f})"
    )
    # JSON has neither NaN, which all are without a picture and SSIM is for tiny ones, nor infinity.
    finite = {name: value for name, value in means.items() if math.isfinite(value)}
    return {"photographs": len(rows), **finite}


def _settings(config, encoder, splits, steps):
    """All that the result depends on, to be compared when a run is resumed."""
    paths = [path for found in splits.values() for path in found]
    sized = zip(data.keys(paths, config.photos), map(os.path.getsize, paths), strict=True)
    return {
        **{k: v for k, v in dataclasses.asdict(config).items() if k not in _UNSHAPING},
        "steps_per_epoch": steps,
        "encoder_sha256": _digest(encoder),
        "photographs_sha256": _sha256("\n".join(sorted(f"{key} {size}" for key, size in sized))),
        "initial_weights_sha256": _file_sha256(config.initial_weights),
    }


def _record(config, encoder, splits, settings, feature_scale, metrics):
    """What decoder.h5 says of its training, without any folder."""
    paths = {name: getattr(config, name) for name in _FILES}
    names = {
        name: path and os.path.basename(os.path.normpath(path)) for name, path in paths.items()
    }
    shaping = {name: value for name, value in settings.items() if name != "encoder_sha256"}
    return TrainingRecord(
        layer=config.layer,
        encoder={"source": encoder.source, "seed": encoder.seed, "sha256": encoder.digests},
        flags={**names, **shaping},
        photographs={split: len(found) for split, found in splits.items()},
        steps=config.epochs * settings["steps_per_epoch"],
        feature_scale=feature_scale,
        validation={n.removeprefix("val_"): v for n, v in metrics.items() if n.startswith("val_")},
    )


def _digest(loaded):
    return _sha256("".join(loaded.digests.values()))


def _sha256(text):
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _file_sha256(path):
    if path is None or not os.path.isfile(path):
        return None  # Whoever reads it says what is wrong with it.
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
