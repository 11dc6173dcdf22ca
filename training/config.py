"""What training can be asked for: the words that its commands share.

Nothing here needs TensorFlow.
"""

__all__ = [
    "INITIAL_KERNELS",
    "LOSS_WEIGHTS",
    "MULTI_SCALE_CROP",
    "OPTIMIZERS",
    "PRECISIONS",
    "SPLITS",
    "STRATEGIES",
]

# What a decoder begins with: the encoder's kernels, turned round, or random ones.
INITIAL_KERNELS = ("mirrored", "he_normal")

OPTIMIZERS = ("adam", "muon")

# The flags of the terms of the loss.
LOSS_WEIGHTS = ("l1_weight", "l2_weight", "ms_ssim_weight", "perceptual_weight")

PRECISIONS = ("float32", "bfloat16")

# One device; all devices of a machine; several machines, named by TF_CONFIG.
STRATEGIES = ("one", "mirrored", "multi_worker")

SPLITS = ("train", "validation", "test")

# The least side of a crop for MS-SSIM: five scales, the smallest as large as the filter of 11.
MULTI_SCALE_CROP = 11 * 2**4
