"""The picture on a model page: what a module contains, beside the other half of its pair.

Everything drawn comes from the block table in `vgg19`. Sizes are stylised, not to scale: a layer's
height stands for the height and width of its map, its width for the number of channels.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Polygon, Rectangle
from matplotlib.path import Path

from unpooling import vgg19

__all__ = ["build_figure", "draw"]

# One unit is one pixel of the PNG; y is 0 on the line along which the data flows.
_DPI = 100
_MARGIN = 36  # white around everything
_PADDING = 44  # between the dashed line and what it encloses
_GAP = 38  # between two parts: room for a short arrow
_LONE_GAP = 150  # the same for a lone block: its box has to be as wide as half of its name
_SEAM = 4  # between two layers of one block
_TALLEST, _STEP = 680, 88  # height of block 1; what every pooling takes off
_WIDEN = 7  # what every doubling of the channels adds to the width of a convolution
_SLIM = 44  # width of preprocessing, pooling and unpooling: one line of letters
_PICTURE = 216  # side of a picture: the name written above it is as wide
_EXIT = 195  # from the last layer to the dashed line: room for the end of the last block's shape
_OUTPUTS = 340  # from the dashed line to the decoder: room for the shape of the features
_PALE_SCALE = 0.45  # the other half is another module; its convolutions bear no names
_DROP, _BEND = 34, 20  # from a block down to the line that carries its indices; radius of its bends

# Heights of letters. At 192 pixels one can read the titles, on a page's full width the rest.
_TITLE, _SUBTITLE, _LABEL, _LAYER = 48, 40, 28, 25
_TITLE_ADVANCE = 0.63 * _TITLE  # from one bold letter to the next, rounded up

# Okabe and Ito's colour-blind-safe blue and vermilion, the latter darker, to bear white letters.
_INK, _SLATE, _BLUE, _VERMILION, _TINT = "#222222", "#4A5560", "#0072B2", "#B84A00", "#F0F6FB"
_GREY, _LIGHT_GREY, _GREY_INK = "#C6CBD0", "#E4E7EA", "#5F666D"  # the decoder's


@dataclasses.dataclass(frozen=True)
class _Style:
    """How one half of the pair is drawn."""

    convolution: str
    pooling: str
    preprocessing: str
    ink: str
    label: str
    scale: float
    named: bool


_MAIN = _Style(_BLUE, _VERMILION, _SLATE, _INK, "white", 1, named=True)
_PALE = _Style(_GREY, _LIGHT_GREY, _LIGHT_GREY, _GREY_INK, _GREY_INK, _PALE_SCALE, named=False)

# By file: a font looked up by name may be the system's, with other outlines than matplotlib's.
_FONTS = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
_REGULAR, _BOLD = _FONTS / "DejaVuSans.ttf", _FONTS / "DejaVuSans-Bold.ttf"


def draw(layer: str, path: str, kind: str = "encoder") -> None:
    """Writes the diagram of the pair of `layer` as a PNG.

    The bytes are the same every time, whatever the caller's matplotlib settings are.

    Args:
      layer: one of `vgg19.LAYERS`.
      path: the file to write; an existing file is replaced.
      kind: which half the page is of, one of `options.KINDS`.

    Raises:
      ValueError: if `layer` is not one of `vgg19.LAYERS`.
    """
    figure = build_figure(layer, kind)
    with matplotlib.style.context("default", after_reset=True):
        # Without this, matplotlib signs the file with its version.
        FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def build_figure(layer: str, kind: str = "encoder") -> Figure:
    """Returns what `draw` writes, still open to inspection; one data unit is one pixel.

    Args:
      layer: one of `vgg19.LAYERS`.
      kind: which half the page is of, one of `options.KINDS`.

    Raises:
      ValueError: if `layer` is not one of `vgg19.LAYERS`.
    """
    blocks = vgg19.blocks_up_to(layer)
    with matplotlib.style.context("default", after_reset=True):
        figure = Figure(dpi=_DPI, facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        width, bottom, top = _diagram(axes, layer, blocks, kind)
        # Known only after drawing: the limits and the size that make a unit a pixel.
        axes.set(xlim=(0, width), ylim=(bottom, top))
        figure.set_size_inches(width / _DPI, (top - bottom) / _DPI)
    return figure


def _diagram(axes: Axes, layer: str, blocks: Sequence[vgg19.Block], kind: str):
    """Draws all parts from left to right; returns the (width, bottom, top) that they take."""
    pooled = [block for block in blocks if block.pooled]
    gap = _GAP if pooled else _LONE_GAP
    box_top = _TALLEST // 2 + 2 * _PADDING
    box_bottom = -_TALLEST // 2 - _PADDING - (_DROP if pooled else 0)
    pixels = f"(B, H, W, {blocks[0].convolutions[0].in_channels})"

    left = _MARGIN + _PICTURE  # of everything between the pictures
    if kind == "encoder":
        _coloured_picture(axes, _MARGIN, "images", pixels)
        box_left = left + _PADDING
        _port(axes, box_left, 0, _INK)
        pools, end = _encoder(axes, left, box_left + gap, blocks, gap, _MAIN)
        edge = box_right = end + _EXIT  # where features and indices leave the box
        unpools, picture = _decoder(axes, box_right + _OUTPUTS, blocks, gap, gap, _PALE)
        _pale_picture(axes, picture, "reconstruction", pixels)
        enters, name_at, side = box_right + _OUTPUTS, edge + _GAP / 2, "left"
    else:
        _pale_picture(axes, _MARGIN, "images", pixels)
        pools, end = _encoder(axes, left, left + gap, blocks, gap, _PALE)
        edge = box_left = end + _OUTPUTS
        enters = box_left + gap
        unpools, picture = _decoder(axes, enters, blocks, gap, gap + 2 * _PADDING, _MAIN)
        box_right = picture - _PADDING
        _port(axes, box_right, 0, _INK)
        _coloured_picture(axes, picture, "reconstruction", pixels)
        name_at, side = edge - _GAP / 2, "right"
    right = picture + _PICTURE

    size = (box_right - box_left, box_top - box_bottom)
    line = {"edgecolor": _INK, "linewidth": 2.5, "linestyle": (0, (5, 3))}
    axes.add_patch(Rectangle((box_left, box_bottom), *size, facecolor=_TINT, zorder=0, **line))
    title = vgg19.encoder_name(layer) if kind == "encoder" else vgg19.decoder_name(layer)
    if _TITLE_ADVANCE * len(title) > box_right - box_left:
        title = title.replace("-unpooling", "-\nunpooling")
    title_bottom = box_top + _PADDING // 2
    title_top = round(title_bottom + 1.2 * _TITLE * len(title.splitlines()))
    _text(axes, box_left, title_bottom, title, _INK, _TITLE, bold=True, ha="left", va="bottom")
    if kind == "encoder":
        other, x, aligned = "decoder (a separate module)", right, "right"
    else:
        other, x, aligned = "encoder (a separate module)", _MARGIN, "left"
    _text(axes, x, title_bottom, other, _GREY_INK, _SUBTITLE, ha=aligned, va="bottom")

    crossing = {"edge": edge, "name_at": name_at, "side": side}
    way = [(end, 0), (enters, 0)]
    _output(axes, way, "features", _BLUE, **crossing)
    shape = {"ha": side, "va": "top"}
    _text(axes, name_at, -_LABEL / 2, _shape(blocks[-1]), _INK, **shape)
    for block, start, stop in zip(pooled, pools, reversed(unpools), strict=True):
        rim = _STEP / 4 - _height(block) / 2  # the lower edge, half-way through the pooling
        lane = -_height(block) / 2 - _DROP
        way = [(start, rim), (start, lane), (stop, lane), (stop, rim)]
        _output(axes, way, block.indices_name, _VERMILION, **crossing)
    return right + _MARGIN, box_bottom - _MARGIN, title_top + _MARGIN


def _encoder(axes, left, x, blocks, gap, style):
    """Draws from the arrow that begins at `left`; returns the poolings' middles and the end."""
    _arrow(axes, [(left, 0), (x, 0)], style.ink)
    label = "preprocessing:  RGB to BGR, minus mean" if style.named else ""
    _layer(axes, x, _SLIM, _TALLEST, _TALLEST, style.preprocessing, label, style.label)
    x += _SLIM
    pools = []
    for block in blocks:
        height, width = _height(block), round(style.scale * _width(block))
        _arrow(axes, [(x, 0), (x + gap, 0)], style.ink)
        x += gap
        if style.named:
            y = height / 2 + _LABEL / 2
            _text(axes, x, y, _shape(block), _INK, ha="left", va="bottom")
        for convolution in block.convolutions:
            label = _name(convolution.name, convolution) if style.named else ""
            _layer(axes, x, width, height, height, style.convolution, label, style.label)
            x += width + _SEAM
        if block.pooled:
            label = f"{block.pool_name}  max pooling" if style.named else "max pooling"
            _layer(axes, x, _SLIM, height, height - _STEP, style.pooling, label, style.label)
            pools.append(x + _SLIM / 2)
            x += _SLIM
    return pools, x - _SEAM


def _decoder(axes, left, blocks, gap, last_gap, style):
    """Draws the mirror image; returns the unpoolings' middles and where the last arrow ends."""
    x = left
    unpools = []
    for block in reversed(blocks):
        height, width = _height(block), round(style.scale * _width(block))
        if block.pooled:
            label = "unpooling"
            _layer(axes, x, _SLIM, height - _STEP, height, style.pooling, label, style.label)
            unpools.append(x + _SLIM / 2)
            x += _SLIM + _SEAM
        for convolution in reversed(block.convolutions):
            # Of the decoder's names only what is like the encoder's: the rest would not fit.
            mirrored = dataclasses.replace(convolution, out_channels=convolution.in_channels)
            label = _name(convolution.name, mirrored) if style.named else ""
            _layer(axes, x, width, height, height, style.convolution, label, style.label)
            x += width + _SEAM
        x -= _SEAM
        if style.named and block is not blocks[-1]:  # That one's shape is at the features.
            y = height / 2 + _LABEL / 2
            _text(axes, x, y, _shape(block), _INK, ha="right", va="bottom")
        length = last_gap if block is blocks[0] else gap
        _arrow(axes, [(x, 0), (x + length, 0)], style.ink)
        x += length
    return unpools, x


def _name(name, convolution):
    rows, columns, _, channels = convolution.kernel_shape
    return f"{name}  {rows}x{columns}, {channels}"


def _shape(block):
    """The shape of the block's maps in letters, such as (B, H/4, W/4, 256)."""
    divisor = vgg19.downsampling(vgg19.LAYERS[block.number - 1])
    share = f"/{divisor}" if divisor > 1 else ""
    return f"(B, H{share}, W{share}, {block.channels})"


def _height(block):
    return _TALLEST - _STEP * (block.number - 1)


def _width(block):
    """The width of one convolution of the block."""
    return round(_WIDEN * math.log2(block.channels))


def _layer(axes, x, width, height_in, height_out, colour, label="", ink="white"):
    """Draws a layer that turns maps of one height into maps of another."""
    left, right = height_in / 2, height_out / 2
    corners = [(x, -left), (x, left), (x + width, right), (x + width, -right)]
    axes.add_patch(Polygon(corners, facecolor=colour, linewidth=0, zorder=2))
    if label:
        _text(axes, x + width / 2, 0, label, ink, _LAYER, rotation=90)


def _output(axes, way, name, colour, edge, name_at, side):
    """Draws an arrow that crosses the dashed line at x = `edge`, with its name just outside."""
    _arrow(axes, way, colour)
    y = way[-2][1]
    _port(axes, edge, y, colour)
    _text(axes, name_at, y + 6, name, colour, bold=True, ha=side, va="bottom")


def _port(axes, x, y, colour):
    """Marks where data crosses the dashed line."""
    axes.add_patch(Circle((x, y), 9, facecolor="white", edgecolor=colour, linewidth=3, zorder=3))


def _arrow(axes, points, colour):
    """Draws an arrow along `points`, its bends rounded."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_near(corner, before), corner, _near(corner, after)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    path = Path([*vertices, points[-1]], [*codes, Path.LINETO])
    head = "-|>,head_length=12,head_width=7"
    style = {"color": colour, "linewidth": 3, "capstyle": "butt", "joinstyle": "miter"}
    axes.add_patch(FancyArrowPatch(path=path, arrowstyle=head, mutation_scale=1, zorder=1, **style))


def _near(corner, point):
    """Where the bend around `corner` meets the straight line to `point`."""
    share = min(1, _BEND / math.dist(corner, point))
    return tuple(c + share * (p - c) for c, p in zip(corner, point, strict=True))


def _coloured_picture(axes, x, name, shape):
    _picture(axes, x, name, shape, _INK, "#BFE3F5", "#F0B400", "#00805C")


def _pale_picture(axes, x, name, shape):
    _picture(axes, x, name, shape, _GREY_INK, _LIGHT_GREY, "white", _GREY)


def _picture(axes, x, name, shape, ink, sky, sun, hills):
    """Draws a landscape, which stands for any picture, with its name and shape."""
    side, low = _PICTURE, -_PICTURE / 2
    ridge = [(0, 0), (0, 0.3), (0.3, 0.62), (0.52, 0.36), (0.68, 0.5), (1, 0.2), (1, 0)]
    corners = [(x + side * u, low + side * v) for u, v in ridge]
    axes.add_patch(Rectangle((x, low), side, side, facecolor=sky, zorder=2))
    axes.add_patch(Circle((x + 0.72 * side, 0.22 * side), 0.11 * side, facecolor=sun, zorder=2))
    axes.add_patch(Polygon(corners, facecolor=hills, zorder=2))
    axes.add_patch(Rectangle((x, low), side, side, fill=False, edgecolor=ink, lw=2, zorder=3))
    _text(axes, x + side / 2, -low + _LABEL / 2, name, ink, bold=True, va="bottom")
    _text(axes, x + side / 2, low - _LABEL / 2, shape, ink, va="top")


def _text(axes, x, y, text, ink, size=_LABEL, bold=False, **how):
    how = {"ha": "center", "va": "center", "fontsize": size * 72 / _DPI, "zorder": 4, **how}
    axes.text(x, y, text, color=ink, font=_BOLD if bold else _REGULAR, **how)
