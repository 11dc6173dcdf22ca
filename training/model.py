"""A frozen encoder and a decoder that learns to reconstruct its pictures."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from training import distribution, losses
from training.config import TrainConfig
from training.last_convolution import convolve_to_pixels
from unpooling import decoder, encoder, pooling, vgg19
from unpooling.convolutions import convolve
from unpooling.errors import UserError

__all__ = [
    "MEAN_RGB",
    "PIXEL_SCALE",
    "Reconstruction",
    "check_keras",
    "encode_with_switches",
    "root_mean_square",
]

# The units of the last convolution: about the standard deviation and the mean of pixels.
PIXEL_SCALE = 64.0
MEAN_RGB = np.array(vgg19.MEAN_BGR[::-1], np.float32)

_Layers = Mapping[str, tuple[np.ndarray, np.ndarray]]


def check_keras() -> None:
    """Raises UserError if Keras is configured in a way with which nothing can be trained here."""
    advice = {
        "KERAS_BACKEND, and `backend` in keras.json": keras.backend.backend() != "tensorflow",
        "`floatx` in keras.json": keras.config.floatx() != "float32",
        "KERAS_MAX_EPOCHS": keras.config.max_epochs(),
        "KERAS_MAX_STEPS_PER_EPOCH": keras.config.max_steps_per_epoch(),
    }
    if wrong := [name for name, is_wrong in advice.items() if is_wrong]:
        raise UserError(f"training needs TensorFlow and float32: unset {', '.join(wrong)}.")


def root_mean_square(layer: str, encoder_layers: _Layers, images: tf.Tensor) -> float:
    """Returns the root mean square of the encoder's features, over all axes.

    Args:
      layer: one of `LAYERS`.
      encoder_layers: for each convolution up to `layer`, or more, its (kernel, bias), float32.
      images: (B, H, W, 3), float32, RGB, values in [0, 255].
    """
    features = encoder.encode(layer, _cast(encoder_layers), images, pooling.max_pool)
    return float(tf.sqrt(tf.reduce_mean(tf.square(features))))


def encode_with_switches(
    layer: str,
    weights: Mapping[str, tuple[tf.Tensor, tf.Tensor]],
    images: tf.Tensor,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Returns features, dtype of `weights`, and switches, for arguments as of `encoder.encode`."""
    switches = []

    def pool(values):
        pooled, where = pooling.max_pool_with_switches(values)
        switches.append(where)
        return pooled

    return encoder.encode(layer, weights, images, pool), switches


class Reconstruction(keras.Model):
    """Encodes pictures, decodes them, and learns from the difference; for Keras' `fit`.

    Weights learn best at values around 1, but features and pixels are in the hundreds. So the
    decoder is trained in other units: features divided by `feature_scale`, pixels less `MEAN_RGB`
    divided by `PIXEL_SCALE`. `decoder_layers` folds these units into the weights. The encoder's
    weights are constants.

    `fit` takes batches of images; `evaluate` and validation take (images, counts), as `data`
    makes them. Each term of the loss is a metric of its name, the weighted sum is `loss`.
    """

    def __init__(
        self, config: TrainConfig, encoder_layers: _Layers, initial_layers: _Layers, scale: float
    ):
        """Makes a model.

        Args:
          config: of which `layer`, `loss_weights` and `precision` count. The term "perceptual" is
            the mean squared difference of the encoder's features of picture and reconstruction
            (J. Johnson et al., arXiv 1603.08155). With "bfloat16", the convolutions of a training
            step are computed in it, except for the last one, which makes pixels, and those that
            encode the pictures: the positions would be other ones. Weights, losses and everything
            outside of training are float32.
          encoder_layers: for each convolution of the encoder its (kernel, bias): float32,
            (3, 3, in, out) and (out,).
          initial_layers: likewise for each convolution of the decoder, in the units in which it
            learns.
          scale: the root mean square of the encoder's features.

        Raises:
          UserError: if the scale is not a positive number.
        """
        super().__init__(name="reconstruction", dtype="float32")
        if not 0 < scale < np.inf:
            raise UserError(
                "the encoder's features must have a root mean square above 0: are its weights "
                f"trained? Received: {scale}."
            )
        self.layer, self.precision, self.feature_scale = config.layer, config.precision, scale
        self.loss_weights = config.loss_weights
        names = (convolution.name for convolution in vgg19.convolutions(self.layer))
        self._encoder = _cast({name: encoder_layers[name] for name in names})
        self._decoder = {}
        for convolution in vgg19.convolutions(self.layer, "decoder"):
            kernel, bias = initial_layers[convolution.name]
            self._decoder[convolution.name] = (
                self._add(f"{convolution.name}_kernel", kernel),
                self._add(f"{convolution.name}_bias", bias),
            )
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", *self.loss_weights)}
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The mean of the loss and of each term, over the pictures of an epoch."""
        return list(self._means.values())

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the reconstructions of pictures, in float32 throughout.

        Args:
          images: (B, H, W, 3), float32, RGB, values in [0, 255]; H and W multiples of 2^(K-1).

        Returns:
          (B, H, W, 3), float32, RGB.
        """
        return self._reconstruct(images, tf.float32)[1]

    def decoder_layers(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns {name: (kernel, bias)}, float32, for `Decoder`, with the units folded in."""
        return {
            name: tuple(np.array(tensor, np.float32) for tensor in pair)
            for name, pair in self._folded().items()
        }

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Learns from a batch as for a call; sides of at least 176 for MS-SSIM.

        Returns:
          {name: (), float32}: the loss and each term, their means since the epoch began.
        """
        with tf.GradientTape() as tape:
            loss, found = self._compare(images, tf.as_dtype(self.precision))
            # The optimizer adds up what the replicas found.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            mean = tf.reduce_mean(loss) / replicas
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(mean, variables), variables, strict=True))
        return self._update(loss, found, None)

    def test_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Measures a batch in float32: images, and how much each counts, (B,), float32."""
        images, counts = data
        loss, found = self._compare(images, tf.float32)
        return self._update(loss, found, counts)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing, since the model is built.

        With several devices, Keras 3.15 would take the first batch away to learn its shape; with
        several workers it would fail: "Attempt to convert a value (PerReplica) with an unsupported
        type to a Tensor".
        """

    def _add(self, name, array):
        def initializer(shape, dtype=None):
            return tf.convert_to_tensor(array, dtype)

        return self.add_weight(array.shape, initializer, name=name)

    def _folded(self):
        """{name: (kernel, bias)} with the units folded in: features in, pixels out."""
        folded = {
            name: tuple(map(tf.convert_to_tensor, pair)) for name, pair in self._decoder.items()
        }
        first, *_, last = folded
        folded[first] = folded[first][0] / self.feature_scale, folded[first][1]
        folded[last] = folded[last][0] * PIXEL_SCALE, folded[last][1] * PIXEL_SCALE + MEAN_RGB
        return folded

    def _reconstruct(self, images, dtype):
        """The features of pictures, and the pictures made of them."""
        features, switches = encode_with_switches(self.layer, self._encoder, images)
        features = tf.cast(features, dtype)  # Only now, so that the switches are the encoder's.
        weights = self._folded()
        *others, last = weights
        weights = {**_cast({name: weights[name] for name in others}, dtype), last: weights[last]}

        def convolution(values, name):
            if name == last:
                return convolve_to_pixels(values, *weights[name])
            return convolve(values, *weights[name], relu=False)

        return features, decoder.decode(self.layer, convolution, features, switches)

    def _compare(self, images, dtype):
        """The weighted sum and the terms, each (B,)."""
        features, decoded = self._reconstruct(images, dtype)
        found = losses.terms(images, decoded, self.loss_weights)
        if "perceptual" in self.loss_weights:
            weights = _cast(self._encoder, dtype)
            again = encoder.encode(self.layer, weights, decoded, pooling.max_pool)
            found["perceptual"] = losses.mean_squared(features, again)
        return tf.add_n([w * found[name] for name, w in self.loss_weights.items()]), found

    def _update(self, loss, found, counts):
        for name, values in {"loss": loss, **found}.items():
            self._means[name].update_state(values, sample_weight=counts)
        results = {name: mean.result() for name, mean in self._means.items()}
        if distribution.has_several_workers(tf.distribute.get_strategy()):
            # Keras 3.15 takes the mean over a first axis of what they return.
            return {name: tf.reshape(result, [1]) for name, result in results.items()}
        return results


def _cast(layers, dtype=tf.float32):
    return {name: tuple(tf.cast(x, dtype) for x in pair) for name, pair in layers.items()}
