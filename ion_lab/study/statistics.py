"""Mean and spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scipy.stats import t as student


class Spread(NamedTuple):
    """What several seeds gave.

    Attributes:
        mean: of the values; None without any.
        spread: their sample standard deviation (divisor n - 1); None for fewer than two.
        count: number of values, n.
    """

    mean: float | None
    spread: float | None
    count: int  # type: ignore[assignment]  # it hides tuple.count, which nothing calls


def spread_of(values: Iterable[float | None]) -> Spread:
    """Mean and sample standard deviation.

    Args:
        values: one for each seed; None where there is none.

    Returns:
        Both, over the values that there are.
    """
    there = [value for value in values if value is not None]
    return Spread(
        statistics.fmean(there) if there else None,
        statistics.stdev(there) if len(there) > 1 else None,
        len(there),
    )


def half_width(values: Spread, level: float = 0.95) -> float | None:
    """Half the confidence interval of a mean, by Student's t.

    Args:
        values: what the mean is of, taken for a sample of a normal distribution.
        level: share of such intervals that hold the true mean.

    Returns:
        How far the interval reaches from the mean to either side; None for fewer than two values.
    """
    if values.spread is None:
        return None
    quantile = student.ppf((1 + level) / 2, values.count - 1)
    return float(quantile * values.spread / math.sqrt(values.count))


def pooled_spread(groups: Sequence[Spread]) -> float | None:
    """Standard deviation that several groups share: the root of their mean variance.

    Args:
        groups: the groups; each variance weighs by its degrees of freedom, n - 1.

    Returns:
        The pooled spread; None if no group has two values.
    """
    known = [(group.count - 1, group.spread) for group in groups if group.spread is not None]
    freedom = sum(degrees for degrees, _ in known)
    if not freedom:
        return None
    return math.sqrt(sum(degrees * spread**2 for degrees, spread in known) / freedom)
