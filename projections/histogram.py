"""A histogram of durations: exact count, sum, minimum and maximum; quantiles within a stated relative error.

Law: buckets are fixed (32 to each power of two, integers only), so a histogram depends on the values alone, not on
their order or on the machine, and histograms merge by adding their buckets. A quantile is the middle of its bucket:
at most half a bucket, that is 1/64 = 1.6 %, from the exact value; values under 64 ns are exact.
"""

from __future__ import annotations

import math

import msgspec

_BITS = 5
"""32 buckets to each power of two."""

RELATIVE_ERROR_MAX = 1 / (1 << (_BITS + 1))
"""How far a quantile may be from the exact one, relative to it."""


class Histogram(msgspec.Struct, omit_defaults=True):
    """Durations in integer nanoseconds. `buckets` maps a bucket's number to how many values fell into it."""

    count: int = 0
    sum: int = 0
    min: int = 0
    max: int = 0
    buckets: dict[int, int] = {}

    def add(self, value: int) -> None:
        """Count one duration. A negative one (the clock was set back meanwhile) counts as zero."""
        if value < 0:
            value = 0
        if value < self.min or not self.count:
            self.min = value
        if value > self.max:
            self.max = value
        self.count += 1
        self.sum += value
        bucket = bucket_of(value)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        """Add all that `other` has counted."""
        if not other.count:
            return
        self.min = min(self.min, other.min) if self.count else other.min
        self.max = max(self.max, other.max)
        self.count += other.count
        self.sum += other.sum
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    @property
    def mean(self) -> int | None:
        """The mean in whole nanoseconds; None when nothing was counted."""
        return self.sum // self.count if self.count else None

    def quantile(self, q: float) -> int | None:
        """The value of rank ceil(q * count), 0 < q <= 1; None when nothing was counted."""
        if not self.count:
            return None
        rank = max(1, math.ceil(q * self.count))
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return min(max(_middle(bucket), self.min), self.max)
        return self.max


def bucket_of(value: int) -> int:
    """The number of the bucket of a value >= 0; grows with the value."""
    shift = max(value.bit_length() - _BITS - 1, 0)
    return (shift << _BITS) + (value >> shift)


def _middle(bucket: int) -> int:
    if bucket < 1 << (_BITS + 1):
        return bucket
    shift = (bucket >> _BITS) - 1
    low = (bucket - (shift << _BITS)) << shift
    return low + (1 << shift >> 1)
