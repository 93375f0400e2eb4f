"""Mean and spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scipy.stats import t as student


class Spread(NamedTuple):
    """What several seeds gave."""

    mean: float | None  # None without values
    spread: float | None  # sample standard deviation (divisor n - 1); None for fewer than two
    count: int  # type: ignore[assignment]  # n; it hides tuple.count, which nothing calls


def spread_of(values: Iterable[float | None]) -> Spread:
    """Mean and sample standard deviation of the values that are not None."""
    there = [value for value in values if value is not None]
    return Spread(
        statistics.fmean(there) if there else None,
        statistics.stdev(there) if len(there) > 1 else None,
        len(there),
    )


def half_width(values: Spread, level: float = 0.95) -> float | None:
    """Half the confidence interval of a mean, by Student's t; None for fewer than two values.

    Args:
        values: what the mean is of, taken for a sample of a normal distribution.
        level: share of such intervals that hold the true mean.
    """
    if values.spread is None:
        return None
    quantile = student.ppf((1 + level) / 2, values.count - 1)
    return float(quantile * values.spread / math.sqrt(values.count))


def pooled_spread(groups: Sequence[Spread]) -> float | None:
    """Standard deviation that several groups share: the root of their mean variance.

    Each variance weighs by its degrees of freedom, n - 1; None if no group has two values.
    """
    known = [(group.count - 1, group.spread) for group in groups if group.spread is not None]
    freedom = sum(degrees for degrees, _ in known)
    if not freedom:
        return None
    return math.sqrt(sum(degrees * spread**2 for degrees, spread in known) / freedom)
