"""Lengths in few values: on a CPU a kernel is compiled for every new one, and many of them are kept."""

FRAME_STEP = 32
"""Frames of a log-mel come in multiples of this; what is added is masked, or cut off again."""

TOKEN_STEP = 16
"""The same of tokens."""


def round_up(length: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-length // step) * step
