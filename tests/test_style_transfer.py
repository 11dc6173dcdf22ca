"""The transfer: tile by tile as in one piece, by labels, in every kind of small picture."""

import io

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

import unpooling
from tests.descriptors import random_weights
from unpooling import LAYERS, Decoder, Encoder, style, tiling, vgg19
from unpooling.errors import UserError
from unpooling.style import passes, reduction, smoothing, statistics
from unpooling.style.masks import Mask
from unpooling.style.style import Style


def pair(layer):
    return (
        Encoder(layer, random_weights("encoder", layer)),
        Decoder(layer, random_weights("decoder", layer)),
    )


@pytest.fixture(scope="module")
def pairs():
    """Untrained, with decoded values within [0, 255], so that nothing is clipped."""
    return tuple(calibrated(layer) for layer in LAYERS[:2])


def calibrated(layer):
    encoder, decoder = pair(layer)
    _, bias = list(decoder.weights.values())[-1]
    kernel, _ = list(decoder.weights.values())[-1]
    decoded = decoder(encoder.compact(photograph(48, 48)[np.newaxis].astype(np.float32)))
    scale = 40 / np.std(decoded)
    kernel.assign(kernel * scale)
    bias.assign(bias * scale + 128 - scale * np.mean(decoded))
    return encoder, decoder


class Linear:
    """Stands for a trained pair: an encoder that loses nothing, and its decoder, in one."""

    layer = LAYERS[0]
    variables = ()

    def __init__(self):
        matrix = np.random.default_rng(0).normal(size=(64, 3))
        self.matrix = np.linalg.qr(matrix)[0].T.astype(np.float32)

    def features(self, images):
        return tf.tensordot(images, self.matrix, 1)

    compact = features

    def __call__(self, features):
        return tf.tensordot(features, self.matrix.T, 1)


LINEAR = ((Linear(), Linear()),)


def photograph(height, width, seed=0):
    """Waves and noise, uint8: no two tiles are alike."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., np.newaxis]
    waves = 127 + 60 * np.sin((y + 3 * seed) / [5, 9, 14] + x / [11, 6, 8 + seed])
    return np.uint8(np.clip(waves + random.uniform(-50, 50, (height, width, 3)), 0, 255))


def assert_nearly_the_same(found, expected, share=1e-3):
    """As bytes: equal but for what float32 rounds otherwise."""
    assert found.shape == expected.shape and found.dtype == expected.dtype == np.uint8
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1 and np.mean(difference > 0) <= share


# --- The whole, against slow and obvious code.


def expected_level(encoder, decoder, content, style_picture, strength):
    """One level in one piece: padded by reflection, SciPy's roots, position by position."""
    scale, margin = vgg19.downsampling(encoder.layer), tiling.margin(encoder.layer)
    padded = [
        np.pad(
            picture.astype(np.float32),
            [(margin, margin + -side % scale) for side in picture.shape[:2]] + [(0, 0)],
            mode="reflect",
        )
        for picture in (content, style_picture)
    ]
    known = []
    for picture, image in zip((content, style_picture), padded, strict=True):
        features = tf.nest.flatten(encoder.compact(image[np.newaxis]))[0][0].numpy()
        height, width = (-(-side // scale) for side in picture.shape[:2])
        start = margin // scale
        inside = features[start : start + height, start : start + width].astype(np.float64)
        inside = inside.reshape(-1, features.shape[-1])
        known.append((inside.mean(axis=0), np.cov(inside.T, bias=True)))
    (mean, source), (goal, target) = known
    channels = len(mean)
    added = (0.5 * (np.trace(source) + np.trace(target)) / channels + 1e-6) * np.eye(channels)
    source, target = source + added, target + added
    root = scipy.linalg.sqrtm(source).real
    inverse = np.linalg.inv(root)
    matrix = inverse @ scipy.linalg.sqrtm(root @ target @ root).real @ inverse
    features, *switches = tf.nest.flatten(encoder.compact(padded[0][np.newaxis]))
    features = features.numpy()
    for position in np.ndindex(features.shape[:3]):
        value = features[position]
        moved = matrix @ (value - mean) + goal
        features[position] = value + strength * (moved - value)
    decoded = decoder([features, *switches] if switches else features)[0].numpy()
    height, width, _ = content.shape
    return decoded[margin : margin + height, margin : margin + width]


def test_a_transfer_is_what_its_levels_make_of_one_another(pairs):
    content, look = photograph(37, 50), photograph(44, 31, seed=1)
    strengths = (0.8, 0.6)
    picture = content
    for (encoder, decoder), strength in reversed(list(zip(pairs, strengths, strict=True))):
        picture = expected_level(encoder, decoder, picture, look, strength)
    found = style.transfer(content, look, pairs, strength=strengths, smoothing="none", side=16)
    difference = np.abs(found - np.clip(picture, 0, 255))
    # float16 between the levels, and rounding at the end.
    assert difference.max() < 1.5 and np.mean(difference) < 0.3


@pytest.mark.parametrize("layer", LAYERS)
def test_tiles_give_the_same_as_one_piece(layer):
    level = pair(layer)
    content = photograph(44, 24)
    labels = np.ones(content.shape[:2], np.uint8)
    labels[:, 10:] = 2
    channels = vgg19.blocks_up_to(layer)[-1].channels
    random = np.random.default_rng(1)
    maps = {
        label: (np.eye(channels) + random.normal(0, 0.02, (channels, channels)), np.ones(channels))
        for label in (1, 2)
    }
    whole, tiled = (
        passes.apply(level, content, Mask(labels, content), maps, side=side) for side in (512, 32)
    )
    span = np.ptp(whole.astype(np.float32))
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=2e-3 * span)
    assert np.mean(tiled != whole) < 0.02


def test_no_tile_is_larger_than_asked_and_nothing_is_padded_with_zeros():
    seen = []

    class Spy(Linear):
        def features(self, images):
            seen.append(images.shape[1:3])
            assert tf.reduce_min(images) > 0
            return super().features(images)

        compact = features

    content = np.maximum(photograph(1100, 700), 1)
    style.transfer(content, content[:50, :50], [(Spy(), Linear())], smoothing="none")
    most = 512 + 2 * tiling.margin(LAYERS[0])
    assert max(max(size) for size in seen) <= most
    assert len(seen) == 1 + 6 + 6  # of the style, for statistics, for the transfer


def test_the_same_bits_twice_and_from_tiles_of_any_size(pairs):
    content, look = photograph(70, 90), photograph(40, 40, seed=1)
    first = style.transfer(content, look, pairs)
    np.testing.assert_array_equal(style.transfer(content, look, pairs), first)
    assert_nearly_the_same(style.transfer(content, look, pairs, side=24), first)


def test_two_crops_of_a_picture_agree_but_for_their_borders_when_maps_are_the_same(pairs):
    level = pairs[1]
    content = photograph(120, 90)
    channels = 128
    maps = {1: (1.2 * np.eye(channels), np.full(channels, 0.1))}
    crops = [content[:96], content[24:]]
    one, other = (passes.apply(level, crop, Mask(None, crop), maps) for crop in crops)
    margin = tiling.margin(LAYERS[1])
    np.testing.assert_allclose(
        one[24 + margin : 96 - margin], other[margin : 72 - margin], rtol=0, atol=0.13
    )


# --- Strength.


def test_strength_0_is_the_plain_reconstruction(pairs):
    content, look = photograph(37, 50), photograph(40, 40, seed=1)
    picture = content
    for level, dtype in ((pairs[1], np.float16), (pairs[0], np.uint8)):
        picture = passes.apply(level, picture, Mask(None, picture), {}, dtype)
    found = style.transfer(content, look, pairs, strength=0, smoothing="none")
    np.testing.assert_array_equal(found, picture)
    # Away from the border, where padding differs, it is that of `tiling`.
    encoder, decoder = pairs[0]
    plain = np.empty((1, *content.shape), np.uint8)
    tiling.reconstruct(encoder, decoder, content[np.newaxis], out=plain)
    found = style.transfer(content, look, pairs[:1], strength=0, smoothing="none")
    assert_nearly_the_same(found[4:-4, 4:-4], plain[0, 4:-4, 4:-4], share=0.01)


def test_strength_goes_from_the_content_to_the_style():
    content, look = photograph(60, 60), photograph(60, 60, seed=1) // 3
    means = [
        style.transfer(content, look, LINEAR, strength=s, smoothing="none").mean()
        for s in (0, 0.5, 1)
    ]
    assert means[0] > means[1] + 1 > means[2] + 2


# --- Labels.


@pytest.mark.parametrize("options", [{"smoothing": "none"}, {"smoothing": "guided"}])
def test_labels_without_a_partner_stay_bit_for_bit_and_are_named(pairs, options):
    content, look = photograph(60, 80), photograph(40, 40, seed=1) // 3
    labels = np.ones(content.shape[:2], np.uint8)
    labels[:, :30], labels[:, 60:] = 0, 5
    remarks = []
    found = style.transfer(
        content, look, pairs, content_mask=labels, remark=remarks.append, **options
    )
    assert remarks == ["the content's label 5 stays as in the content: the style has 1."]
    np.testing.assert_array_equal(found[:, :29], content[:, :29])
    np.testing.assert_array_equal(found[:, 61:], content[:, 61:])
    assert np.abs(found[:, 35:55].astype(int) - content[:, 35:55]).mean() > 5
    with pytest.warns(UserWarning, match="the content's label 3 stays as in the content"):
        whole = style.transfer(content, look, pairs[:1], content_mask=0 * labels + 3, **options)
    np.testing.assert_array_equal(whole, content)


def test_each_label_takes_the_colours_of_its_partner_with_a_soft_seam():
    content = photograph(60, 120)
    look = np.concatenate([photograph(40, 40) // 4, 190 + photograph(40, 40) // 4], axis=1)
    left, right = (np.zeros(p.shape[:2], np.uint8) + 1 for p in (content, look))
    left[:, 60:], right[:, 40:] = 2, 2
    arguments = {"smoothing": "none", "remark": pytest.fail}
    found = style.transfer(content, look, LINEAR, content_mask=left, style_mask=right, **arguments)
    alone = [
        style.transfer(part, other, LINEAR, **arguments)
        for part, other in ((content[:, :60], look[:, :40]), (content[:, 60:], look[:, 40:]))
    ]
    assert np.abs(found[:, :50] - alone[0][:, :50].astype(int)).mean() < 12
    assert np.abs(found[:, 70:] - alone[1][:, 10:].astype(int)).mean() < 12
    weights = Mask(left, content).weights((0, 60, 0, 120), 1)
    np.testing.assert_allclose(sum(weights.values()), 1, atol=1e-6)
    seam = weights[2].reshape(60, 120)[30]
    assert np.count_nonzero((seam > 0) & (seam < 1)) >= 2
    assert (np.diff(seam) >= 0).all()


# --- Small, flat and odd pictures.


@pytest.mark.parametrize("smooth", style.SMOOTHINGS)
@pytest.mark.parametrize("method", style.METHODS)
def test_every_picture_gives_a_sensible_one(method, smooth):
    flat, grey = np.full((9, 9, 3), 77, np.uint8), photograph(20, 20)[..., :1].repeat(3, axis=-1)
    small = photograph(1, 1), photograph(3, 5), photograph(1, 40)
    for look in (flat, photograph(2, 2, seed=1), photograph(30, 20, seed=1)):
        for content in (flat, grey, 0 * flat, *small):
            found = style.transfer(content, look, LINEAR, method=method, smoothing=smooth)
            assert found.shape == content.shape and found.dtype == np.uint8
            if np.ptp(content, axis=(0, 1)).max() == 0:  # It stays flat.
                assert np.ptp(found, axis=(0, 1)).max() <= 1
                goal = np.mean(look, axis=(0, 1))
                assert smooth == "guided" or np.abs(found[0, 0] - goal).max() < 2


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 40)])
def test_pictures_smaller_than_what_deeper_levels_see(pairs, size):
    content, look = photograph(*size), photograph(2, 2, seed=1)
    assert style.transfer(content, look, pairs).shape == content.shape


def test_a_region_of_one_pixel():
    content, look = photograph(30, 30), photograph(30, 30, seed=1)
    labels = np.ones((30, 30), np.uint8)
    labels[10, 10] = 2
    found = style.transfer(
        content, look, LINEAR, content_mask=labels, style_mask=labels[::-1], smoothing="none"
    )
    plain = style.transfer(content, look, LINEAR, smoothing="none")
    assert np.abs(found.astype(int) - plain)[:5].max() < 30


# --- Smoothing, and what it carries to larger pictures.


def test_smoothing_follows_a_change_of_colours_and_keeps_its_contrast():
    content = photograph(90, 120)
    mask = Mask(None, content)
    picture = 1.4 * content.astype(np.float32)[..., ::-1] - 20
    found = smoothing.smoothed(content, picture.astype(np.float16), mask)
    seen = np.clip(picture, 0, 255)
    assert np.abs(found.mean(axis=(0, 1)) - seen.mean(axis=(0, 1))).max() < 4
    assert np.abs(found.std(axis=(0, 1)) - seen.std(axis=(0, 1))).max() < 6
    assert np.abs(found - seen).mean() < 0.4 * np.abs(content - seen).mean()
    unchanged = smoothing.smoothed(content, content.astype(np.float32), mask)
    assert np.abs(unchanged.astype(int) - content).max() <= 1


def test_smoothing_takes_away_what_the_content_does_not_have():
    """Grain, and a halo around a dark square in a sky."""
    content = np.full((100, 120, 3), 180, np.uint8)
    content[40:60, 50:70] = 30
    picture = content + np.random.default_rng(0).normal(0, 10, content.shape).astype(np.float32)
    picture[37:63, 47:73] += 40
    found = smoothing.smoothed(content, picture, Mask(None, content)).astype(int)
    near, far = found[38, 50:70].mean(axis=0), found[10, :20].mean(axis=0)
    assert np.abs(near - far).max() < 12
    assert np.abs(np.diff(found[:30], axis=1)).max() <= 2


def test_smoothing_of_one_label_leaves_the_others_alone():
    content = photograph(60, 120)
    labels = np.ones((60, 120), np.uint8)
    labels[:, 60:] = 2
    picture = content.astype(np.float32)
    picture[:, :60] = 255 - picture[:, :60]
    found = smoothing.smoothed(content, picture, Mask(labels, content)).astype(int)
    assert np.abs(found[:, 64:] - content[:, 64:]).max() <= 6


def test_small_maps_are_enlarged_by_bilinear_interpolation():
    maps = np.random.default_rng(0).normal(size=(7, 9, 2)).astype(np.float32)
    whole = tf.image.resize(maps, (28, 36))
    found = reduction.enlarged(maps, 4, (5, 21, 3, 30))
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), whole[5:21, 3:30], atol=1e-5)


def test_reduced_pictures_are_means_of_squares():
    picture = photograph(7, 9)
    padded = np.pad(picture, [(0, 1), (0, 1), (0, 0)], mode="reflect").astype(float)
    expected = padded.reshape(4, 2, 5, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(reduction.reduced(picture, 2), expected, rtol=1e-6)


def test_fast_is_nearly_the_exact_way(pairs, monkeypatch):
    content = np.repeat(np.repeat(photograph(25, 30), 4, axis=0), 4, axis=1)
    look = photograph(60, 60, seed=1)
    exact = style.transfer(content, look, pairs)
    np.testing.assert_array_equal(style.transfer(content, look, pairs, fast=True), exact)
    monkeypatch.setattr(reduction, "factor", lambda maps: 2)
    sizes = []
    measure = statistics.measure
    monkeypatch.setattr(
        statistics, "measure", lambda *a, **k: sizes.append(a[1].shape) or measure(*a, **k)
    )
    labels = np.ones(content.shape[:2], np.uint8)
    found = style.transfer(content, look, pairs, fast=True, content_mask=labels, smoothing="none")
    assert set(sizes) == {(30, 30, 3), (50, 60, 3)}
    assert np.abs(found.astype(int) - exact).mean() < 30


# --- Learnt styles.


def test_a_style_that_was_saved_gives_the_same_bits(pairs, tmp_path):
    content, look = photograph(40, 50), photograph(44, 31, seed=1)
    labels = np.arange(44 * 31).reshape(44, 31) % 3
    learnt = Style.learn(look, pairs, labels)
    path = tmp_path / "look.npz"
    learnt.save(path)
    loaded = Style.load(path)
    assert loaded.layers == learnt.layers == LAYERS[:2] and loaded.labels == (1, 2)
    assert loaded.encoders == learnt.encoders and loaded.has_mask and learnt.has_mask
    np.testing.assert_array_equal(
        style.transfer(content, loaded, pairs), style.transfer(content, learnt, pairs)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["look.npz"]


def test_a_style_goes_with_the_encoders_that_it_was_learnt_with(pairs):
    (encoder, decoder), _ = pairs
    layers = {name: (k.numpy(), b.numpy() + 1) for name, (k, b) in encoder.weights.items()}
    other = [(Encoder(LAYERS[0], layers), decoder)]
    learnt, others = (Style.learn(PICTURE, each) for each in (pairs, other))
    with pytest.raises(UserError, match="was learnt with another encoder of block1_conv2"):
        style.transfer(PICTURE, learnt, other)
    with pytest.raises(UserError, match="learnt with different encoders of block1_conv2"):
        Style.mix([learnt, others])


def test_styles_mix(pairs):
    one, other = (Style.learn(photograph(30, 30, seed), pairs[:1]) for seed in (1, 2))
    ends = Style.mix([one, other], [1, 0]), Style.mix([one])
    for end in ends:
        found, expected = (s.statistics[LAYERS[0]][1] for s in (end, one))
        np.testing.assert_array_equal(found.covariance, expected.covariance)
    half = Style.mix([one, other]).statistics[LAYERS[0]][1]
    means = [s.statistics[LAYERS[0]][1].mean for s in (one, other)]
    np.testing.assert_allclose(half.mean, np.mean(means, axis=0))


# --- Progress and modules.


def test_progress_grows_to_1_and_may_stop(pairs):
    content, look = photograph(40, 50), photograph(44, 31, seed=1)
    parts = []
    style.transfer(content, look, pairs, strength=(1, 0), progress=parts.append, side=16)
    assert parts == sorted(parts) and parts[0] < 0.2 and parts[-1] == pytest.approx(1)

    class Stop(Exception):
        pass

    def stop(part):
        raise Stop

    with pytest.raises(Stop):
        style.transfer(content, look, pairs, progress=stop)


def test_modules_are_found_as_hubs_and_trees_lay_them_out(build, build_decoder, tmp_path):
    for folder in (build("block1_conv2"), build_decoder("block1_conv2")):
        (tmp_path / "deep" / folder.name).parent.mkdir(exist_ok=True)
        (tmp_path / "deep" / folder.name).symlink_to(folder)
    loaded = style.load_modules(tmp_path / "deep", 1)
    content, look = photograph(20, 30), photograph(30, 20, seed=1)
    found = style.transfer(content, look, loaded)
    assert found.shape == content.shape
    with pytest.raises(UserError, match="holds no encoder for block2_conv2"):
        style.load_modules(tmp_path / "deep", 2)


def test_of_several_versions_of_a_module_the_newest_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(unpooling, "load", lambda path: path)
    monkeypatch.setattr(tiling, "layer_of", lambda path: LAYERS[0])
    for kind in ("encoder", "decoder"):
        for version in ("2", "9", "10"):
            folder = tmp_path / f"vgg19-block1-conv2-unpooling-{kind}" / version
            folder.mkdir(parents=True)
            (folder / "saved_model.pb").touch()
    ((encoder, decoder),) = style.load_modules(tmp_path, 1)
    assert encoder.name == decoder.name == "10"


# --- Wrong input.


PICTURE = np.zeros((6, 8, 3), np.uint8)
PARTS = {"count": (), "mean": 64, "covariance": 64 * 65 // 2}  # of block1_conv2, and their sizes
LABELS = np.ones((6, 8), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"content": PICTURE / 2}, "`content` must be a picture.* Received: float64"),
        ({"content": PICTURE[..., 0]}, r"`content` must be .* Received: shape \(6, 8\)"),
        ({"style": "a.jpg"}, "`style` must be a picture.* Received: str"),
        ({"strength": 1.5}, "`strength` must be from 0 to 1.* Received: 1.5"),
        ({"strength": [1, 1, 1]}, "one for each of the 2 levels"),
        ({"strength": float("nan")}, "`strength` must be from 0 to 1"),
        ({"method": "adain"}, "`method` must be one of ot, wct. Received: adain"),
        ({"smoothing": "matting"}, "`smoothing` must be one of guided, none"),
        ({"content_mask": LABELS.T}, "the size of its picture, 8x6 pixels. Received: 6x8"),
        ({"style_mask": LABELS[:3]}, "the size of its picture, 8x6 pixels. Received: 8x3"),
        ({"content_mask": LABELS / 2}, "one integer for each pixel.* Received: float64"),
        ({"content_mask": LABELS.astype(int) * 300}, "from 0 to 255. Received: 300 to 300"),
        ({"style_mask": 0 * LABELS}, "label 0 throughout"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(pairs, arguments, message):
    arguments = {"content": PICTURE, "style": PICTURE, **arguments}
    with pytest.raises(UserError, match=message) as refused:
        style.transfer(pairs=pairs, **arguments)
    assert "\n" not in str(refused.value)


def test_styles_that_do_not_fit_are_refused(pairs, tmp_path):
    learnt = Style.learn(PICTURE, pairs[:1])
    with pytest.raises(UserError, match="knows the features of block1_conv2, not of block2_conv2"):
        style.transfer(PICTURE, learnt, pairs)
    with pytest.raises(UserError, match="a learnt style has its labels"):
        style.transfer(PICTURE, learnt, pairs[:1], style_mask=LABELS)
    for weights in ([1], [1, -1], [0, 0], [1, float("nan")]):
        with pytest.raises(UserError, match="weights"):
            Style.mix([learnt, learnt], weights)
    known = {f"block1_conv2/1/{part}": np.ones(size) for part, size in PARTS.items()}
    np.save(array := io.BytesIO(), np.ones(3))
    broken = {
        "text.npz": lambda path: path.write_text("no archive"),
        "other.npz": lambda path: np.savez(path, values=np.ones(3)),
        "shapes.npz": lambda path: np.savez(path, **{"block1_conv2/1/mean": np.ones(3)}),
        "objects.npz": lambda path: np.savez(path, **{"block1_conv2/1/mean": np.array([None])}),
        "none.npz": lambda path: np.savez(path),
        "nobody.npz": lambda path: np.savez(path, **known),
        "empty.npz": lambda path: path.touch(),
        "array.npz": lambda path: path.write_bytes(array.getvalue()),
        "missing.npz": lambda path: None,
    }
    for name, write in broken.items():
        write(tmp_path / name)
        with pytest.raises(UserError, match=rf"{name} is not a style that was saved"):
            Style.load(tmp_path / name)
    with pytest.raises(UserError, match="cannot be written"):
        learnt.save(tmp_path / "missing" / "look.npz")
    with pytest.raises(UserError, match="`depth` must be from 1 to 5"):
        style.load_pairs(6, "random", "random")
    with pytest.raises(UserError, match="holds no decoder for block1_conv2"):
        style.load_pairs(1, "random", str(tmp_path))
