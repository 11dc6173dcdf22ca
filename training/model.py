"""A frozen encoder and a decoder that learns to give its pictures back."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from training import config, distribution, losses
from unpooling import decoder, encoder, pooling, vgg19

__all__ = ["MEAN_RGB", "PIXEL_SCALE", "Reconstruction", "encode_with_switches", "root_mean_square"]

# The units of the last convolution: about the standard deviation and the mean of pixels.
PIXEL_SCALE = 64.0
MEAN_RGB = np.array(vgg19.MEAN_BGR[::-1], np.float32)

_Layers = Mapping[str, tuple[np.ndarray, np.ndarray]]


def root_mean_square(layer: str, encoder_layers: _Layers, images: tf.Tensor) -> float:
    """Returns the root mean square of the encoder's features, over all axes.

    Args:
      layer: one of `vgg19.LAYERS`.
      encoder_layers: for each convolution up to `layer`, or more, its (kernel, bias), float32.
      images: (B, H, W, 3), float32, RGB, values in [0, 255].
    """
    weights = {name: tuple(map(tf.constant, pair)) for name, pair in encoder_layers.items()}
    features = encoder.encode(layer, weights, images, pooling.max_pool)
    return float(tf.sqrt(tf.reduce_mean(tf.square(features))))


def encode_with_switches(
    layer: str, weights: Mapping[str, tuple[tf.Tensor, tf.Tensor]], images: tf.Tensor
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Returns what a decoder takes, by the pooling that suits this machine.

    Args:
      layer: one of `vgg19.LAYERS`, that of block K.
      weights: for each convolution its (kernel, bias), (3, 3, in, out) and (out,), any floating
        dtype, in which the convolution is then computed.
      images: (B, H, W, 3), float32, RGB, values in [0, 255].

    Returns:
      The features, (B, H/2^(K-1), W/2^(K-1), C), dtype of the weights, and for block 1 to K-1 the
      switches, uint8.
    """
    switches = []

    def pool(values):
        pooled, places = pooling.max_pool_with_switches(values, distribution.pooling_engine())
        switches.append(places)
        return pooled

    return encoder.encode(layer, weights, images, pool), switches


class Reconstruction(keras.Model):
    """Encodes pictures, decodes them again, and learns by the difference; for Keras' `fit`.

    Weights learn best at values around 1, but features are in the hundreds and so are pixels.
    So the decoder is trained in units of its own: features divided by `feature_scale`, the last
    convolution's output times `PIXEL_SCALE`, plus `MEAN_RGB`. `decoder_layers` folds these units
    into the weights. The encoder's weights are constants: they get no gradient. Kernels are kept as
    matrices, (9 * in, out).

    `fit` takes batches of images; `evaluate` and validation take (images, counts), as `data`
    makes them. Each active term of the loss is a metric of its name, the weighted sum is `loss`.
    """

    def __init__(
        self,
        layer: str,
        encoder_layers: _Layers,
        initial_layers: _Layers,
        feature_scale: float = 1.0,
        weights: losses.LossWeights | None = None,
        precision: str = "float32",
    ):
        """Makes a model.

        Args:
          layer: one of `vgg19.LAYERS`.
          encoder_layers: for each convolution of the encoder its (kernel, bias): float32,
            (3, 3, in, out) and (out,).
          initial_layers: likewise for each convolution of `vgg19.mirror(layer)`, in the units in
            which it learns.
          feature_scale: the root mean square of the encoder's features.
          weights: of the terms of the loss; None for the published ones.
          precision: one of `config.PRECISIONS`: in which the convolutions of a training step are
            computed, all but the last one, which makes pixels. Weights, losses and everything
            outside of training are float32.

        Raises:
          ValueError: if `layer` or `precision` is not one of those, all weights of the loss are
            0, or the scale is not a positive number.
        """
        super().__init__(name="reconstruction")
        if precision not in config.PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {', '.join(config.PRECISIONS)}. "
                f"Received: {precision!r}."
            )
        if not 0 < feature_scale < np.inf:
            raise ValueError(
                "the encoder's features must have a root mean square above 0: are its weights "
                f"trained? Received: {feature_scale}."
            )
        self.layer = layer
        self.precision = precision
        self.loss_weights = losses.LossWeights() if weights is None else weights
        active = self.loss_weights.active()
        if not active:
            raise ValueError("at least one term of the loss must have a weight other than 0.")
        self._encoder = {
            convolution.name: tuple(map(tf.constant, encoder_layers[convolution.name]))
            for convolution in vgg19.convolutions(layer)
        }
        self._convolutions = tuple(c.name for c in vgg19.convolutions(layer, "decoder"))
        self._decoder = {
            name: tuple(
                self.add_weight(
                    shape=_as_matrix(array).shape,
                    initializer=_given(_as_matrix(array)),
                    name=f"{name}_{part}",
                )
                for part, array in zip(("kernel", "bias"), initial_layers[name], strict=True)
            )
            for name in self._convolutions
        }
        self.feature_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(feature_scale),
            trainable=False,
            name="feature_scale",
        )
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", *active)}
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The mean of the loss and of each active term, over the pictures of an epoch."""
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
        """Returns {name: (kernel, bias)}, float32, for `export.decoder.Decoder`: without units."""
        return {
            name: tuple(np.array(tensor, np.float32) for tensor in pair)
            for name, pair in self._folded().items()
        }

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Learns from a batch, for `fit`.

        Args:
          images: (B, H, W, 3), float32, RGB, values in [0, 255]; the sides as for a call, and at
            least 176 for MS-SSIM.

        Returns:
          {name: (), float32}: the loss and each active term, their means since the epoch began.
        """
        dtype = tf.as_dtype(self.precision)
        with tf.GradientTape() as tape:
            loss, found = self._compare(images, dtype)
            # The optimizer adds up what the replicas found.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            mean = tf.reduce_mean(loss) / replicas
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(mean, variables), variables, strict=True))
        return self._update(loss, found, None)

    def test_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Measures a batch in float32, for `evaluate` and validation.

        Args:
          data: images as for `train_step`, and how much each counts, (B,), float32.

        Returns:
          As `train_step`.
        """
        images, counts = data
        loss, found = self._compare(images, tf.float32)
        return self._update(loss, found, counts)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing is left to build; Keras 3.15 cannot do it for several workers.

        It would add up a batch of theirs to learn its shape, and fails with "Attempt to convert a
        value (PerReplica) with an unsupported type to a Tensor".
        """

    def _folded(self):
        """{name: (kernel, bias)} with the units folded in: features in, pixels out."""
        folded = {}
        for name, (kernel, bias) in self._decoder.items():
            kernel, bias = tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias)
            folded[name] = tf.reshape(kernel, [3, 3, -1, bias.shape[0]]), bias
        first, last = self._convolutions[0], self._convolutions[-1]
        kernel, bias = folded[first]
        folded[first] = kernel / tf.convert_to_tensor(self.feature_scale), bias
        kernel, bias = folded[last]
        folded[last] = kernel * PIXEL_SCALE, bias * PIXEL_SCALE + MEAN_RGB
        return folded

    def _reconstruct(self, images, dtype):
        """The features of pictures, and the pictures made of them."""
        features, switches = encode_with_switches(self.layer, _cast(self._encoder, dtype), images)
        weights = self._folded()
        last = self._convolutions[-1]
        weights = {**_cast(weights, dtype), last: weights[last]}

        def convolution(values, name):
            return decoder.convolve(values, *weights[name])

        return features, decoder.decode(self.layer, convolution, features, switches)

    def _compare(self, images, dtype):
        """The weighted sum and the terms, each (B,)."""
        names = tuple(self.loss_weights.active())
        features, decoded = self._reconstruct(images, dtype)
        found = losses.terms(images, decoded, names)
        if "perceptual" in names:
            weights = _cast(self._encoder, dtype)
            again = encoder.encode(self.layer, weights, decoded, pooling.max_pool)
            found["perceptual"] = losses.mean_squared(features, again)
        return losses.total(found, self.loss_weights), found

    def _update(self, loss, found, counts):
        for name, values in {"loss": loss, **found}.items():
            self._means[name].update_state(values, sample_weight=counts)
        results = {name: mean.result() for name, mean in self._means.items()}
        if _has_several_workers():
            # Keras 3.15 takes the mean of what they return over a first axis.
            return {name: tf.reshape(result, [1]) for name, result in results.items()}
        return results


def _has_several_workers():
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    return len(strategy.cluster_resolver.cluster_spec().as_dict().get("worker", [])) > 1


def _as_matrix(array):
    """A kernel, (3, 3, in, out), as (9 * in, out): Muon is for matrices. A bias as it is."""
    return array.reshape(-1, array.shape[-1]) if array.ndim == 4 else array


def _given(array):
    """An initializer that gives these numbers."""
    return lambda shape, dtype=None: tf.convert_to_tensor(array, dtype)


def _cast(layers, dtype):
    return {name: tuple(tf.cast(t, dtype) for t in pair) for name, pair in layers.items()}
