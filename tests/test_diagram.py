"""Tests of export/diagram.py."""

import itertools
import os
import pathlib
import re
import subprocess
import sys

import matplotlib
import numpy as np
import PIL.Image
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from export import diagram
from unpooling import vgg19

# Written out here, not computed: the shapes of the five blocks, from the paper.
SHAPES = (
    "(B, H, W, 64)",
    "(B, H/2, W/2, 128)",
    "(B, H/4, W/4, 256)",
    "(B, H/8, W/8, 512)",
    "(B, H/16, W/16, 512)",
)

# Settings of a user that would change the drawing, the letters, the lines or the file.
HOSTILE_SETTINGS = {
    "figure.dpi": 50,
    "savefig.dpi": 300,
    "savefig.bbox": "tight",
    "savefig.facecolor": "black",
    "figure.autolayout": True,
    "font.family": "serif",
    "font.size": 30,
    "text.antialiased": False,
    "patch.antialiased": False,
    "path.sketch": (1, 100, 2),
}

every_layer = pytest.mark.parametrize("layer", vgg19.LAYERS)


def texts(layer):
    """The figure's non-empty texts with their boxes in pixels, from left to right."""
    figure = diagram.build_figure(layer)
    renderer = FigureCanvasAgg(figure).get_renderer()
    found = [text for text in figure.findobj(Text) if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in found]
    return figure, sorted(zip(found, boxes, strict=True), key=lambda pair: pair[1].x0)


def words(layer):
    """The figure's texts from left to right, line breaks removed."""
    return [text.get_text().replace("\n", "") for text, _ in texts(layer)[1]]


def path_in_pixels(patch):
    return patch.get_transform().transform_path(patch.get_path())


def dashed_line(figure):
    (line,) = (p for p in figure.findobj(Rectangle) if p.get_linestyle() not in ("-", "solid"))
    return line.get_window_extent()


@every_layer
def test_draw_writes_a_png_with_a_white_margin(layer, tmp_path):
    path = tmp_path / "encoder.png"
    diagram.draw(layer, str(path))
    with PIL.Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    height, width, _ = pixels.shape
    assert 900 <= height <= 1100
    assert 1.5 * height <= width <= 3.2 * height
    # Nothing is cut off at an edge, and something is drawn between the edges.
    inside = pixels[12:-12, 12:-12]
    margin_size = pixels.size - inside.size
    assert pixels.sum(dtype=np.int64) - inside.sum(dtype=np.int64) == 255 * margin_size
    assert 0.05 < np.mean(inside.min(axis=-1) < 128) < 0.5


@every_layer
def test_drawing_twice_gives_the_same_bytes(layer, tmp_path):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    diagram.draw(layer, str(first))
    diagram.draw(layer, str(second))
    assert first.read_bytes() == second.read_bytes()


def test_file_names_no_software_and_no_time(tmp_path):
    path = tmp_path / "encoder.png"
    diagram.draw("block1_conv2", str(path))
    with PIL.Image.open(path) as image:
        image.load()
        assert set(image.info) == {"dpi"}


def test_settings_of_the_caller_change_nothing_and_stay(tmp_path):
    usual, hostile = tmp_path / "usual.png", tmp_path / "hostile.png"
    diagram.draw("block2_conv2", str(usual))
    with matplotlib.rc_context(HOSTILE_SETTINGS):
        before = {key: matplotlib.rcParams[key] for key in HOSTILE_SETTINGS}
        diagram.draw("block2_conv2", str(hostile))
        assert {key: matplotlib.rcParams[key] for key in HOSTILE_SETTINGS} == before
    assert usual.read_bytes() == hostile.read_bytes()


def test_another_process_with_a_matplotlibrc_draws_the_same_without_pyplot(tmp_path):
    here, there = tmp_path / "here.png", tmp_path / "there.png"
    settings = tmp_path / "matplotlibrc"
    settings.write_text("font.size: 30\nsavefig.dpi: 300\ntext.antialiased: False\n")
    program = (
        "import sys; from export import diagram; diagram.draw('block2_conv2', sys.argv[1]);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(there)],
        env={**os.environ, "MATPLOTLIBRC": str(settings), "PYTHONHASHSEED": "7"},
        cwd=pathlib.Path(diagram.__file__).parents[1],
        check=True,
    )
    diagram.draw("block2_conv2", str(here))
    assert here.read_bytes() == there.read_bytes()


@every_layer
def test_names_every_layer_of_the_encoder_once_and_no_other(layer):
    blocks = vgg19.blocks_up_to(layer)
    names = [name for text in words(layer) for name in re.findall(r"block\d+_\w+", text)]
    convolutions = [c.name for block in blocks for c in block.convolutions]
    assert [name for name in names if "conv" in name] == convolutions
    assert convolutions[-1] == layer
    numbers = [block.number for block in blocks[:-1]]
    assert [name for name in names if "pool" in name] == [f"block{n}_pool" for n in numbers]
    indices = [f"block{n}_indices" for n in numbers]
    assert sorted(name for name in names if "indices" in name) == indices
    assert len(names) == len(convolutions) + 2 * len(numbers)


def test_block3_reads_as_written_by_hand():
    assert [text for text in words("block3_conv2") if re.match(r"block\d_(conv|pool)", text)] == [
        "block1_conv1  3x3, 64",
        "block1_conv2  3x3, 64",
        "block1_pool  max pooling",
        "block2_conv1  3x3, 128",
        "block2_conv2  3x3, 128",
        "block2_pool  max pooling",
        "block3_conv1  3x3, 256",
        "block3_conv2  3x3, 256",
    ]


@every_layer
def test_shapes_are_those_of_the_pictures_the_blocks_and_the_features(layer):
    count = len(vgg19.blocks_up_to(layer))
    shapes = [text for text in words(layer) if text.startswith("(B")]
    picture = "(B, H, W, 3)"
    assert shapes == [picture, *SHAPES[:count], SHAPES[count - 1], picture]


@every_layer
def test_no_text_overlaps_another_or_leaves_the_figure(layer):
    figure, found = texts(layer)
    for text, box in found:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    for (one, one_box), (other, other_box) in itertools.combinations(found, 2):
        assert not one_box.overlaps(other_box), (one, other)


@every_layer
def test_rotated_texts_lie_inside_the_layers_and_the_others_outside(layer):
    figure, found = texts(layer)
    layers = [path_in_pixels(polygon) for polygon in figure.findobj(Polygon)]
    assert {text.get_rotation() for text, _ in found} == {0, 90}
    for text, box in found:
        if text.get_rotation():
            assert any(path.contains_points(box.corners()).all() for path in layers), text
        else:
            assert not any(path.intersects_bbox(box) for path in layers), text


@every_layer
def test_no_arrow_runs_through_a_text(layer):
    figure, found = texts(layer)
    arrows = figure.findobj(FancyArrowPatch)
    assert arrows
    # Shaft and head of each arrow, bends as short straight lines.
    lines = [Path(p) for a in arrows for p in path_in_pixels(a).to_polygons(closed_only=False)]
    for line, (text, box) in itertools.product(lines, found):
        halo = box.padded(2)  # half of a line's width
        assert not line.intersects_bbox(halo, filled=False), text


@every_layer
def test_dashed_line_encloses_the_encoder_and_nothing_else(layer):
    figure, found = texts(layer)
    box = dashed_line(figure)
    inside = set()
    for text, text_box in found:
        if Bbox.intersection(box, text_box) is not None:
            # Not merely touched by the line: inside it on all sides.
            assert np.array_equal(Bbox.union([box, text_box]).extents, box.extents), text
            inside.add(text.get_text())
    names = {text.split()[0] for text in inside if not text.startswith("(B")}
    blocks = vgg19.blocks_up_to(layer)
    convolutions = {c.name for block in blocks for c in block.convolutions}
    poolings = {f"block{block.number}_pool" for block in blocks[:-1]}
    assert names == {"preprocessing:"} | convolutions | poolings


@every_layer
def test_title_is_the_name_of_the_module(layer):
    found = words(layer)
    assert f"vgg19-{layer.replace('_', '-')}-unpooling-encoder" in found
    assert "decoder (a separate module)" in found


@every_layer
def test_indices_leave_through_the_dashed_line_from_a_pooling_to_its_mirror(layer):
    figure, found = texts(layer)
    edge = dashed_line(figure).x1
    middles = [((box.x0 + box.x1) / 2, text.get_text()) for text, box in found]
    poolings = [x for x, text in middles if "_pool" in text]
    unpoolings = [x for x, text in middles if text == "unpooling"]
    extents = [path_in_pixels(arrow).get_extents() for arrow in figure.findobj(FancyArrowPatch)]
    ways = sorted((box for box in extents if box.height > 30), key=lambda box: box.x0)
    ends = [(way.x0, way.x1) for way in ways]  # an arrow's head is 20 pixels wide
    assert len(ends) == len(poolings) == len(unpoolings) == len(vgg19.blocks_up_to(layer)) - 1
    for (start, end), pooling, unpooling in zip(ends, poolings, unpoolings[::-1], strict=True):
        assert start == pytest.approx(pooling, abs=2)
        assert end == pytest.approx(unpooling, abs=12)
        assert start < edge < end


@pytest.mark.parametrize("function", [diagram.build_figure, lambda layer: diagram.draw(layer, "")])
def test_unknown_layer_is_refused(function):
    with pytest.raises(ValueError, match=r"`layer` must be one of .*Received: 'block6_conv2'"):
        function("block6_conv2")


def test_the_readme_shows_todays_diagram(tmp_path):
    diagram.draw("block5_conv2", str(tmp_path / "encoder.png"))
    stored = pathlib.Path(__file__).parent.parent / "docs" / "encoder.png"
    with PIL.Image.open(stored) as shown, PIL.Image.open(tmp_path / "encoder.png") as drawn:
        assert shown.size == drawn.size
        # Versions of matplotlib draw letters differently: seen from afar, both look the same.
        afar = (shown.width // 16, shown.height // 16)
        shown, drawn = (
            np.asarray(picture.convert("L").resize(afar, PIL.Image.Resampling.BOX), np.int16)
            for picture in (shown, drawn)
        )
    assert np.abs(shown - drawn).mean() < 2
