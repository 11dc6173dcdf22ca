"""A training run, from photographs to a decoder that has been measured."""

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import re
import sys

import keras
import tensorflow as tf

from export import checksums
from training import callbacks, data, distribution, evaluate, initial_weights, model, optimizers
from training.config import TrainConfig
from training.console import say
from training.run_folder import RunFolder
from unpooling import weights
from unpooling.errors import UserError, one_line
from unpooling.training_record import TrainingRecord

__all__ = ["train"]

# The result does not depend on these. In place of the paths, `_settings` has the content of weights
# and, of photographs, the splits, names and sizes.
_FILES = ("weights", "photos", "initial_weights")
_UNSHAPING = (*_FILES, "output_dir", "evaluation_pictures", "overwrite")

_SAMPLES = 4  # pictures, drawn after each epoch
_SECONDS = 60.0  # between lines in a log, within an epoch


def train(config: TrainConfig) -> str:
    """Trains a decoder, measures it, and returns the path of its decoder.h5.

    `RunFolder` says what else the run leaves. Interrupted and called again with the same
    configuration, it is resumed after the last finished epoch.

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
            if chief:
                folder.check(config.overwrite)  # Before every photograph is read.
            say(f"weights: {one_line(config.weights)}")
            encoder = weights.load(config.weights, config.layer, config.seed)
            splits = data.usable_splits(config.photos)
            steps = config.steps_per_epoch or -(-len(splits["train"]) // config.batch_size)
            scale, layers = _start(config, encoder.layers, splits["train"])
            settings = _settings(config, encoder, splits, steps)
            if chief:
                stack.enter_context(folder.locked())
                folder.begin(settings, config.overwrite)
        # Only now: worker 0 may have removed what an earlier run left.
        backup = callbacks.Backup(folder.backup)
        first = backup.finished_epochs
        asked = int(_sha256(json.dumps([settings, first]))[:6], 16)
        distribution.check_same(strategy, "what is to be trained, from which epoch", asked)
        if first:
            say(f"resumed: after epoch {first}")
        with strategy.scope():
            made = model.Reconstruction(config, encoder.layers, layers, scale)
            optimizer = optimizers.make_optimizer(config, config.epochs * steps)
            made.compile(optimizer=optimizer, jit_compile=False)
            optimizer.build(made.trainable_variables)  # Too late inside a step of several devices.
        backup.restore(made)
        on_terminal = sys.stdout.isatty()  # There, Keras' bar shows how far an epoch has come.
        progress = callbacks.Progress(every=None if on_terminal else _SECONDS)
        # In this order: what is not finite is not kept.
        after_each_epoch = [callbacks.RequireFinite(), progress]
        if chief:
            after_each_epoch += [*_noting(folder, splits["validation"], config.crop), backup]
        sizes = config.crop, config.batch_size
        with _reader_errors():
            made.fit(
                data.training_batches(splits["train"], *sizes, config.seed, first * steps),
                initial_epoch=first,
                epochs=config.epochs,
                steps_per_epoch=steps,
                shuffle=False,  # The batches come shuffled.
                validation_data=data.validation_batches(splits["validation"], *sizes),
                callbacks=after_each_epoch,
                verbose=int(on_terminal),
            )
        trained = weights.Weights(made.decoder_layers(), "file")
        if distribution.has_several_workers(strategy):
            digest = weights.joint_sha256(trained.digests)  # All must print the same.
            say(f"decoder: SHA-256 {digest}")
        with distribution.together(strategy):
            if chief:
                record = _record(config, encoder, splits, settings, scale, folder)
                weights.save(folder.decoder, trained.layers, record)
                measured = _evaluate(config, encoder, trained, splits)
                record = dataclasses.replace(record, evaluation=measured)
                weights.save(folder.decoder, trained.layers, record)
                folder.end()
    return folder.decoder


def _settings(config, encoder, splits, steps):
    """All that the result depends on, to be compared when a run is resumed."""
    names = [
        f"{split} {os.path.basename(p)} {os.path.getsize(p)}"
        for split in splits
        for p in splits[split]
    ]
    start = config.initial_weights and checksums.file_digest(config.initial_weights)["sha256"]
    return {
        **{k: v for k, v in dataclasses.asdict(config).items() if k not in _UNSHAPING},
        "steps_per_epoch": steps,
        "encoder_sha256": weights.joint_sha256(encoder.digests),
        "photographs_sha256": _sha256("\n".join(sorted(names))),
        "initial_weights_sha256": start,
    }


def _start(config, encoder_layers, paths):
    """The scale of features, measured on the first batch, and the decoder's first weights."""
    with _reader_errors():
        batches = data.training_batches(paths, config.crop, config.batch_size, config.seed)
        images = next(iter(batches))
    layers, copied = initial_weights.initial_layers(config, encoder_layers, images)
    if copied:
        say(f"initial weights: {', '.join(copied)}")
    return model.root_mean_square(config.layer, encoder_layers, images), layers


def _noting(folder, held_out, crop):
    """The callbacks that show how far a run has come."""
    shown = held_out[:_SAMPLES]
    images, _ = next(iter(data.validation_batches(shown, crop, len(shown))))
    history = keras.callbacks.LambdaCallback(on_epoch_end=folder.note)
    samples = callbacks.Samples(folder.samples, images)
    if not importlib.util.find_spec("tensorboard"):
        say("no curves: the package tensorboard is not installed")
        return [history, samples]
    return [history, samples, keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False)]


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


def _evaluate(config, encoder, trained, splits):
    """The means over whole photographs that training saw nothing of."""
    paths = [*splits["test"], *splits["validation"]][: config.evaluation_pictures]
    rows, left_out = evaluate.evaluate(config.layer, encoder, trained, paths, config.photos)
    means = evaluate.means(rows)
    more = f"; {len(left_out)} left out, see above" if left_out else ""
    say(f"held out: mean absolute error of {len(rows)} photographs {means['error']:.3f}{more}")
    # JSON has neither NaN, which all are without a picture and SSIM is for tiny ones, nor infinity.
    finite = {name: value for name, value in means.items() if math.isfinite(value)}
    return {"photographs": len(rows), **finite}


def _record(config, encoder, splits, settings, scale, folder):
    """What decoder.h5 says of its training, without any folder."""
    paths = {name: getattr(config, name) or "" for name in _FILES}
    names = {
        name: os.path.basename(os.path.normpath(p)) if p else None for name, p in paths.items()
    }
    shaping = {name: value for name, value in settings.items() if name != "encoder_sha256"}
    metrics = folder.metrics()[-1]
    return TrainingRecord(
        layer=config.layer,
        encoder={"source": encoder.source, "seed": encoder.seed, "sha256": encoder.digests},
        flags={**names, **shaping},
        photographs={split: len(found) for split, found in splits.items()},
        steps=config.epochs * settings["steps_per_epoch"],
        feature_scale=scale,
        validation={n.removeprefix("val_"): v for n, v in metrics.items() if n.startswith("val_")},
    )


def _sha256(text):
    return checksums.digest(text.encode(errors="surrogateescape"))["sha256"]
