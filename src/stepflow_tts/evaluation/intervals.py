"""95 % bootstrap intervals over utterances, also of the difference between two systems.

A statistic takes two columns, numerators and denominators, with utterances along `axis`. Words of one
utterance go wrong together, so whole utterances are drawn. For a difference the same utterances are
drawn for both systems: what is hard for both cancels.
Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation".
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from stepflow_tts.errors import OptionError

Column: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[..., Column]
"""(numerators, denominators, axis=-1) -> their statistic along that axis."""

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A measured value and where it would lie with other utterances, in 95 of 100 cases."""

    value: float
    low: float | None  # None: one utterance tells nothing about others
    high: float | None


class Pair(NamedTuple):
    """The columns of one system, (utterances,) each."""

    numerators: Column
    denominators: Column


def ratio_of_sums(numerators: Column, denominators: Column, axis: int = -1) -> Column:
    """Errors over words; with denominators of one, the mean."""
    ratio: Column = numerators.sum(axis=axis) / denominators.sum(axis=axis)
    return ratio


def median_of_ratios(numerators: Column, denominators: Column, axis: int = -1) -> Column:
    """The middle utterance: one that the machine was disturbed in does not count more than others."""
    median: Column = np.median(numerators / denominators, axis=axis)
    return median


def interval(statistic: Statistic, pair: Pair) -> Interval:
    """The statistic of one system.

    Raises:
        OptionError: there is nothing to take it of.
    """
    return _bootstrap(statistic, pair)


def difference(statistic: Statistic, first: Pair, second: Pair) -> Interval:
    """The statistic of the first system minus that of the second, on the same utterances.

    Raises:
        OptionError: they differ in length, or there is nothing to take it of.
    """

    def minus(a: Column, b: Column, c: Column, d: Column, axis: int = -1) -> Column:
        return statistic(a, b, axis=axis) - statistic(c, d, axis=axis)

    return _bootstrap(minus, (*first, *second))


def quotient(statistic: Statistic, first: Pair, second: Pair) -> Interval:
    """The statistic of the first system over that of the second, on the same utterances.

    Raises:
        OptionError: they differ in length, or there is nothing to take it of.
    """

    def over(a: Column, b: Column, c: Column, d: Column, axis: int = -1) -> Column:
        return statistic(a, b, axis=axis) / statistic(c, d, axis=axis)

    return _bootstrap(over, (*first, *second))


def _bootstrap(statistic: Statistic, columns: tuple[Column, ...]) -> Interval:
    """Percentiles of the statistic over resampled rows of `columns`; always the same for the same."""
    lengths = {len(column) for column in columns}
    if lengths == {0} or len(lengths) != 1:
        raise OptionError(
            f"Columns of {sorted(lengths)} utterances: give as many in each, 1 or more."
        )
    value = float(statistic(*columns))
    if lengths == {1}:
        return Interval(value, None, None)
    result = stats.bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return Interval(value, float(low), float(high))
