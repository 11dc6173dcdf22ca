"""What is known of how a decoder was trained: written into its file, shown on its card."""

import dataclasses
import json
import math
from typing import Self

from unpooling.errors import UserError

__all__ = ["TrainingRecord"]


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """How a decoder was trained, and how well it reconstructs. All values are JSON's.

    Attributes:
      layer: the layer at which its encoder ends.
      encoder: the encoder's weights: `source`, `seed`, and `sha256` of each convolution.
      flags: what shaped the training, paths reduced to base names and hashes.
      photographs: how many photographs each split had.
      steps: how many batches it learned from.
      feature_scale: the root mean square of the encoder's features.
      validation: the metrics after the last epoch.
      evaluation: means over whole held-out photographs: `photographs`, how many, and `error` (the
        mean absolute error, 0 to 255), `clipped_error`, `psnr`, `ssim`, as far as they are finite;
        None before they are measured.
    """

    layer: str
    encoder: dict
    flags: dict
    photographs: dict[str, int]
    steps: int
    feature_scale: float
    validation: dict[str, float]
    evaluation: dict[str, float] | None = None

    @property
    def command(self) -> str:
        """The command that trains it again, with the base names of files and folders."""
        flags = {n: v for n, v in self.flags.items() if v is not None and not n.endswith("_sha256")}
        return " ".join(["python train_decoder.py", *(f"--{n}={v}" for n, v in flags.items())])

    def to_dict(self) -> dict:
        """Returns the record as a dictionary for JSON."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Returns the record as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """Returns the record in a dictionary that `to_dict` made.

        Raises:
          UserError: if a field is missing, unknown or of another type.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(values, dict) or not set(names) - {"evaluation"} <= set(values):
            raise UserError(f"a training record must hold {', '.join(names)}: {values!r:.200}")
        if unknown := set(values) - set(names):
            raise UserError(f"a training record has no field {sorted(unknown)[0]!r:.80}")
        record = cls(**values)
        well_formed = (
            isinstance(record.layer, str)
            and isinstance(record.encoder, dict)
            and isinstance(record.encoder.get("sha256"), dict)
            and isinstance(record.flags, dict)
            and _holds_numbers(record.photographs)
            and _holds_numbers(record.validation)
            and (record.evaluation is None or _holds_numbers(record.evaluation))
            and _is_number(record.steps)
            and _is_number(record.feature_scale)
        )
        if not well_formed:
            raise UserError(f"a training record has a field of another type: {values!r:.200}")
        return record

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the record in JSON that `to_json` made.

        Raises:
          UserError: as `from_dict`, or if the text is not JSON.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"a training record must be JSON: {error}") from error
        return cls.from_dict(values)


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _holds_numbers(values):
    return isinstance(values, dict) and all(map(_is_number, values.values()))
