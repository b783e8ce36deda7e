"""Medians, ratios and their confidence intervals."""

import random
from statistics import median

# Resamples of the bootstrap, and its seed: the same data give the same interval.
RESAMPLES = 4000
SEED = 1


def ratio(ours, theirs):
    """The median of the rounds' ratios with its 95 % interval (percentile bootstrap).

    Values of one round were measured one after the other: what disturbed both cancels out.
    """
    pairs = [a / b for a, b in zip(ours, theirs) if b]
    if not pairs:
        return None
    dice = random.Random(SEED)
    medians = sorted(median(dice.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    low, high = medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975)]
    return {"median": median(pairs), "low": low, "high": high}
