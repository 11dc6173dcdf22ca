"""A page on which to give a photograph the colours and the light of another.

    python studio.py

serves it at http://127.0.0.1:7860/, for a browser on this machine. A Hugging Face Space runs this
file as it is, see docs/style.md. Nothing is sent anywhere.
"""

import contextlib
import io
import os
import pathlib
import tempfile

from absl import flags

from export import cli
from unpooling.errors import UserError

__all__ = ["build"]

FLAGS = flags.FLAGS

# Gradio reads them when it is imported.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")

_SHOWN = 1600  # pixels along the longer side of what is shown; the file to download has all
_KEPT = 3600  # seconds that pictures are kept; it is checked every minute
_AT_ONCE = 2  # transfers; others wait in line


def build(pairs, most_megapixels: float = 50) -> "gr.Blocks":  # noqa: F821
    """Returns the page.

    Args:
      pairs: see `unpooling.style.load_pairs`; their number is the largest depth.
      most_megapixels: larger pictures are refused.
    """
    import gradio as gr

    from unpooling import pictures
    from unpooling.style import METHODS, SMOOTHINGS, Style, transfer
    from unpooling.style.files import match_labels

    def check(path):
        """Names a picture that is too large."""
        height, width = pictures.read_size(path)
        if height * width > most_megapixels * 1e6:
            name = os.path.basename(path)
            raise UserError(
                f"{name} has {height * width / 1e6:.1f} megapixels. This page takes up to "
                f"{most_megapixels:g}: reduce it, or use stylize.py, which takes any size."
            )

    def restyle(
        content,
        style,
        strength,
        depth,
        method,
        smoothing,
        fast,
        content_mask,
        style_mask,
        progress=gr.Progress(),  # noqa: B008 (how Gradio finds it)
    ):
        if not (content and style):
            raise gr.Error("Choose a photograph and a style first.", print_exception=False)
        try:
            for path in filter(None, (content, style, content_mask, style_mask)):
                check(path)
            progress(0, "measuring the style")
            used = pairs[: int(depth)]
            labels = pictures.read_mask(style_mask) if style_mask else None
            known = Style.learn(pictures.read_picture(style), used, labels, fast=fast)
            photograph = pictures.read_photograph(content)
            labels = pictures.read_mask(content_mask) if content_mask else None
            pixels = transfer(
                photograph.pixels,
                known,
                used,
                strength=strength,
                method=method,
                smoothing=smoothing,
                content_mask=match_labels(labels, photograph.pixels.shape[:2], known),
                fast=fast,
                remark=gr.Warning,
                progress=lambda part: progress(part, "changing the photograph"),
            )
            changed = pictures.Photograph(pixels, photograph.alpha, photograph.profile)
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder, os.path.basename(content))
                extension = (
                    path.suffix.lower() if path.suffix.lower() in pictures.FORMATS else ".png"
                )
                path = path.with_name(f"{path.stem}-styled{extension}")
                pictures.write_photograph(path, changed)
                # Gradio has copied the file when it asks for the next result.
                yield (
                    (_shown(photograph), _shown(changed)),
                    gr.DownloadButton(value=path, interactive=True),
                )
        except UserError as error:
            reason = str(error)
            for path in filter(None, (content, style, content_mask, style_mask)):
                reason = reason.replace(f"{os.path.dirname(path)}/", "")
            raise gr.Error(reason, print_exception=False) from error

    def picture(label, **options):
        component = gr.Image(
            label=label,
            type="filepath",
            sources=["upload", "clipboard"],
            image_mode=None,
            **options,
        )
        # Gradio's own reader does not say what is wrong with a file.
        component.preprocess = lambda data: data and data.path
        return component

    with gr.Blocks(
        title="Photorealistic style transfer", analytics_enabled=False, delete_cache=(60, _KEPT)
    ) as page:
        gr.Markdown(
            "# Photorealistic style transfer\n"
            "Give a photograph the colours and the light of another. Every edge stays where it is."
        )
        with gr.Row():
            content = picture("Photograph", elem_id="content", height=280)
            style = picture("Style: the look to take", elem_id="style", height=280)
        with gr.Row():
            strength = gr.Slider(
                0, 1, 1, step=0.05, label="Strength", elem_id="strength", min_width=240
            )
            depth = gr.Slider(
                1,
                max(2, len(pairs)),  # Gradio wants a range, even of what is not shown.
                len(pairs),
                visible=len(pairs) > 1,
                step=1,
                label="Depth",
                info="1 changes colours alone; more levels also carry light and contrast over.",
                min_width=240,
            )
            smoothing = gr.Radio(
                list(SMOOTHINGS),
                value=SMOOTHINGS[0],
                label="Smoothing",
                info="guided takes the detail from the photograph.",
            )
        with gr.Accordion("Masks and more", open=False, elem_id="more"):
            with gr.Row():
                fast = gr.Checkbox(
                    True,
                    label="Fast",
                    info="Work at one megapixel, and carry that to the full size.",
                )
                method = gr.Radio(list(METHODS), value=METHODS[0], label="Method")
            with gr.Row():
                content_mask = picture(
                    "Mask of the photograph: black stays as it is",
                    elem_id="content_mask",
                    height=160,
                )
                style_mask = picture(
                    "Mask of the style: black does not count", elem_id="style_mask", height=160
                )
        button = gr.Button("Restyle", variant="primary", elem_id="restyle")
        result = gr.ImageSlider(
            label="Before and after",
            elem_id="result",
            interactive=False,
            format="jpeg",
            buttons=["fullscreen"],
            max_height=640,
        )
        download = gr.DownloadButton("Download at full size", interactive=False, elem_id="download")
        inputs = [
            content,
            style,
            strength,
            depth,
            method,
            smoothing,
            fast,
            content_mask,
            style_mask,
        ]
        button.click(restyle, inputs, [result, download], api_name="restyle")
    page.queue(default_concurrency_limit=_AT_ONCE)
    return page


def _shown(photograph):
    """The picture to show, in sRGB: Gradio writes no profile into its JPEG."""
    from PIL import Image, ImageCms

    image = Image.fromarray(photograph.pixels)
    image.thumbnail((_SHOWN, _SHOWN))
    if photograph.profile is not None:
        with contextlib.suppress(OSError, ImageCms.PyCMSError):  # A damaged profile.
            profile = ImageCms.ImageCmsProfile(io.BytesIO(photograph.profile))
            image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    return image


def main() -> None:
    page = build(cli.pairs(), FLAGS.most_megapixels)
    try:
        page.launch(
            server_name=FLAGS.host,
            server_port=FLAGS.port,
            share=False,
            ssr_mode=False,
            footer_links=[],
        )
    except OSError as error:
        raise UserError(f"{error} Pass another --port or --host.") from error


if __name__ == "__main__":
    cli.define_pairs_flags()
    flags.DEFINE_float("most_megapixels", 50, "Larger pictures are refused.", 0)
    flags.DEFINE_string(
        "host", None, "The address to listen on; 127.0.0.1, unless GRADIO_SERVER_NAME says so."
    )
    flags.DEFINE_integer("port", None, "The port; a free one from 7860 on.", 0, 65535)
    flags.adopt_module_key_flags(cli)
    cli.run("studio", main)
