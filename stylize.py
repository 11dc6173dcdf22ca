"""Gives photographs the colours and the light of others.

    python stylize.py --content=a.jpg --style=b.jpg --output=out.png

A look, learnt once, for a folder of photographs:

    python stylize.py --style=b.jpg --save_style=look.npz
    python stylize.py --content=FOLDER --style=look.npz --output=FOLDER

docs/style.md explains each flag by pictures.
"""

from absl import flags

from export import cli
from training import console
from unpooling import options

FLAGS = flags.FLAGS

flags.DEFINE_list("content", None, "The photographs to change: files, or folders of them.")
flags.DEFINE_list("style", None, "The photographs to learn from, or a style that was saved, .npz.")
flags.DEFINE_string(
    "output", None, "The file to write, .png, .jpg or .webp; for several contents, a folder."
)
flags.DEFINE_list("style_weights", None, "How much each of several styles counts.")
flags.DEFINE_string("save_style", None, "The .npz in which to keep the style.")
flags.DEFINE_list(
    "content_mask",
    None,
    "Pictures of labels, one for each content, or a folder with NAME.png for each. Label 0 is left "
    "as it is.",
)
flags.DEFINE_list("style_mask", None, "The same for the style pictures.")
flags.DEFINE_list(
    "strength", ["1"], "From 0, the content, to 1, the style; or one for each level, block1 first."
)
flags.DEFINE_enum("method", options.METHODS[0], options.METHODS, "How features are mapped.")
flags.DEFINE_enum("smoothing", options.SMOOTHINGS[0], options.SMOOTHINGS, "What removes the grain.")
flags.DEFINE_bool("fast", False, "Whether to work at about one megapixel, and carry that over.")
flags.DEFINE_bool("overwrite", False, "Whether to replace what is there.")
cli.define_pairs_flags()
flags.mark_flag_as_required("style")
flags.adopt_module_key_flags(cli)  # So that --help lists them.


def _numbers(name):
    """The numbers of a flag that lists them."""
    if FLAGS[name].value is None:
        return None
    try:
        return [float(text) for text in FLAGS[name].value]
    except ValueError:
        received = ",".join(FLAGS[name].value)
        raise flags.ValidationError(
            f"--{name} must be numbers, with commas between. Received: {received}."
        ) from None


def main() -> int:
    strength, bar = _numbers("strength"), console.Bar()
    style_weights = _numbers("style_weights")

    from unpooling.style import stylize

    failed = stylize(
        FLAGS.content,
        FLAGS.style,
        FLAGS.output,
        style_weights=style_weights,
        save_style=FLAGS.save_style,
        content_mask=FLAGS.content_mask,
        style_mask=FLAGS.style_mask,
        strength=strength[0] if len(strength) == 1 else strength,
        method=FLAGS.method,
        smoothing=FLAGS.smoothing,
        depth=FLAGS.depth,
        fast=FLAGS.fast,
        weights=FLAGS.weights,
        decoders=FLAGS.decoders,
        modules=FLAGS.modules,
        overwrite=FLAGS.overwrite,
        say=lambda line: (bar.clear(), console.say(line)),
        remark=lambda line: (bar.clear(), cli.fail("stylize", line)),
        progress=bar,
    )
    bar.clear()
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run("stylize", main, interrupted="what is finished is kept, no partial output was left.")
