"""Shows what an encoder returns: loads an archive, encodes photographs, unpools, draws pictures.

    python demo.py --archive=dist/demo/vgg19-block5-conv2/encoder.tar.gz [PHOTOGRAPH ...]

Without a photograph it takes one that scikit-image brings along.
"""

import os
import sys
import tempfile

from absl import app, flags

FLAGS = flags.FLAGS

flags.DEFINE_string("archive", None, "The encoder.tar.gz to load.", required=True)
flags.DEFINE_string("output_dir", "dist/demo", "The folder for the pictures.")


def main(argv: list[str]) -> int:
    import tensorflow_hub as hub
    from PIL import UnidentifiedImageError

    from unpooling import archive

    try:
        os.makedirs(FLAGS.output_dir, exist_ok=True)
        with tempfile.TemporaryDirectory() as directory:
            archive.unpack(FLAGS.archive, directory)
            encoder = hub.KerasLayer(directory)
        for name, photograph in _photographs(argv[1:]):
            path = os.path.join(FLAGS.output_dir, f"{name}.png")
            show(encoder, photograph, path)
            print(f"picture: {path}", flush=True)
    except (ValueError, OSError, UnidentifiedImageError) as error:
        print(f"demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _photographs(paths):
    """Yields (name, (H, W, 3) uint8) of each file, or of scikit-image's own photograph."""
    import numpy as np
    from PIL import Image

    for path in paths:
        with Image.open(path) as image:
            name = os.path.splitext(os.path.basename(path))[0]
            yield name, np.asarray(image.convert("RGB"))
    if not paths:
        from skimage import data

        yield "astronaut", data.astronaut()


def show(encoder, photograph, path):
    """Encodes a photograph, unpools, and draws what came out.

    Args:
      encoder: takes (B, H, W, 3) float32 and returns [features, block1_indices, ...].
      photograph: (H, W, 3), uint8; cut to sides that every pooling halves.
      path: the PNG to write.

    Raises:
      ValueError: if a value did not return to where its maximum came from.
    """
    import numpy as np
    import tensorflow as tf

    from unpooling import pooling, vgg19

    poolings = len(_as_list(encoder(tf.zeros((1, 16, 16, 3))))) - 1
    height, width = (side // 2**poolings * 2**poolings for side in photograph.shape[:2])
    if min(height, width) == 0:
        raise ValueError(
            f"the photograph for {path} must have sides of at least {2**poolings} pixels. "
            f"Received: {photograph.shape[1]}x{photograph.shape[0]}."
        )
    photograph = photograph[:height, :width]

    images = tf.constant(photograph[np.newaxis], tf.float32)  # (1, H, W, 3)
    features, *indices = _as_list(encoder(images))
    print(f"encode: {width}x{height} pixels -> features {tuple(features.shape)}", flush=True)
    panels = [
        ("photograph", photograph),
        (f"features: mean of {features.shape[-1]} channels", np.mean(features[0], axis=-1)),
    ]
    reliefs = []
    for block, rows in zip(vgg19.blocks_up_to(vgg19.LAYERS[poolings]), indices, strict=False):
        k, channels = block.number, block.channels
        before = (1, height >> (k - 1), width >> (k - 1), channels)  # the map before pooling
        pooled = (1, height >> k, width >> k, channels)
        ones = tf.ones(pooled)
        if not np.array_equal(pooling.max_pool(pooling.unpool(ones, rows, before)), ones):
            raise ValueError(f"{block.indices_name} do not put every value back in its window")
        print(f"unpool: {block.indices_name} {tuple(rows.shape)} -> {before}", flush=True)
        # Each winner lies left or right, above or below in its window of two by two.
        offsets = np.reshape(rows[:, 1] % 2 + rows[:, 2] % 2, pooled)[0]  # (H/2^k, W/2^k, C)
        reliefs.append(
            (f"{block.indices_name}: how far right and\ndown the winners lie", offsets.mean(-1))
        )
    if indices:
        values = features[..., :channels]
        # Without the border, which the convolutions' zero padding makes lively by itself.
        inside = values[0, 2:-2, 2:-2] if min(values.shape[1:3]) > 4 else values[0]
        liveliest = int(np.argmax(np.std(inside, axis=(0, 1))))
        spread = tf.repeat(tf.repeat(values, 2, axis=1), 2, axis=2)
        panels += [
            (f"channel {liveliest}, spread over squares", spread[0, ..., liveliest]),
            (
                f"the same, unpooled with {block.indices_name}",
                pooling.unpool(values, rows, before)[0, ..., liveliest],
            ),
        ]
    _draw([panels, reliefs], path)


def _as_list(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


def _draw(panel_rows, path):
    import matplotlib.figure
    import numpy as np

    panel_rows = [row for row in panel_rows if row]
    columns = max(len(row) for row in panel_rows)
    height, width = np.shape(panel_rows[0][0][1])[:2]
    size = (4 * columns, (4 * height / width + 0.6) * len(panel_rows))  # inches, titles included
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    for r, row in enumerate(panel_rows):
        for c, (title, values) in enumerate(row):
            axes = figure.add_subplot(len(panel_rows), columns, r * columns + c + 1)
            # A few very bright spots must not leave the rest black.
            axes.imshow(values, cmap="gray", vmax=np.percentile(values, 99.5))
            axes.set_title(title, fontsize=11)
            axes.axis("off")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    app.run(main)
