"""How much of a transfer is done."""

from collections.abc import Callable, Sequence

from unpooling import vgg19

__all__ = ["Progress"]


class Progress:
    """Adds up what tiles cost, and reports the part that is done."""

    def __init__(self, report: Callable[[float], None] | None, layers: Sequence[str], passes: int):
        """Starts at 0.

        Args:
          report: takes the part that is done, up to 1.
          layers: those of the pairs through which the picture goes.
          passes: how often it goes through each.
        """
        self._report = report
        self._done, self._total = 0.0, passes * sum(map(_cost, layers))

    def step(self, layer: str, pixels: int, passes: int = 1) -> Callable[[int], None]:
        """Returns a function that takes how many of a picture's pixels went through a pair."""

        def step(part: int) -> None:
            self._done += passes * _cost(layer) * part / pixels
            if self._report is not None:
                self._report(min(1.0, self._done / self._total))

        return step


def _cost(layer):
    """The multiplications of the layer's encoder for one pixel."""
    return sum(
        9 * c.in_channels * c.out_channels / 4 ** (block.number - 1)
        for block in vgg19.blocks_up_to(layer)
        for c in block.convolutions
    )
