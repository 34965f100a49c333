"""The compiled loops under the primitives: rolling statistics by doubling, and the transpose into the panel.

Every rolling statistic here can be *merged*: its value over a window follows from its values over the older
and the newer part of the window. So windows of 1, 2, 4, 8, ... rows are merged pairwise, and a window of n
rows is put together from the powers of two in n (20 = 16 + 4). That takes about log2(n) passes of plain
vector arithmetic, and unlike a running sum

- a value depends on the rows of its window alone, merged in a fixed order: cutting the history before the
  window changes no bit, and a huge or missing value is gone when it leaves the window;
- spreads are merged from differences of means (Chan, Golub & LeVeque 1979), so nothing cancels, and a
  constant window has a spread of exactly 0.

Loops run over slices, not over shifted indices: numba vectorises only the former.
"""

from __future__ import annotations

import numpy as np

from barcast.core.arrays import F32, F64, I32, I64
from barcast.core.compilation import kernel

TOTAL, MEAN, EXPONENTIAL, SPREAD, SKEW, FIT, CORRELATION, HIGHEST, LAST_HIGHEST = range(9)

#: A spread below this share of the mean is rounding, not movement: it counts as 0.
ROUNDING = 1e-12

#: Rows whose working values stay in the first-level cache.
TILE = 512


@kernel
def rolling(x: F64, y: F64, n: int, kind: int, num_carried: int, decay: float, borders: I64) -> F64:
    """Merge windows of one row into windows of ``n`` rows.

    Parameters
    ----------
    x, y : F64, shape (R,)
        The series; ``y`` is read by a correlation only.
    n : int
        Rows of a window.
    kind : int
        Which statistic.
    num_carried : int
        K, how many numbers the statistic carries through its merges, see ``merged``.
    decay : float
        Weight of a row relative to the next newer one, for exponential means.
    borders : I64, shape (num_lives + 1,)
        First row of each life, then R.

    Returns
    -------
    F64, shape (K, R)
        NaN in the first n - 1 rows of each life.
    """
    # windows of 1, then 2, 4, ... rows; a single row has no spread, and is its own extreme
    powers = np.zeros((num_carried, len(x)))
    copy_rows(x, powers[0])
    if kind == CORRELATION:
        copy_rows(y, powers[1])
    result = powers
    covered = 0 * n  # a literal 0 would be a type of its own, and all below be compiled for it once more
    size = 1 + covered
    while covered != n and size <= len(x):
        wanted = (n & size) != 0 and (covered & size) == 0
        if wanted and covered == 0:
            result = powers
            covered = size
            continue
        newer = result if wanted else powers
        num_newer = covered if wanted else size
        bigger = merged(powers, size, newer, num_newer, kind, decay)  # one call: it is compiled into here
        if wanted:
            result = bigger
            covered += size
        else:
            powers = bigger
            size *= 2
    if kind in (SPREAD, SKEW):
        clear_rounding(result[0], result[1], n)
    elif kind == CORRELATION:
        clear_rounding(result[0], result[2], n)
        clear_rounding(result[1], result[3], n)
    elif kind == LAST_HIGHEST:
        clear_missing(result[0], result[1])
    for k in range(num_carried):
        clear_heads(result[k], borders, n - 1)
    return result


@kernel
def copy_rows(x: F64, out: F64) -> None:
    """Copy: a plain loop compiles in a fraction of the time of a slice assignment."""
    for i in range(len(out)):
        out[i] = x[i]


@kernel
def merged(older: F64, num_older: int, newer: F64, num_newer: int, kind: int, decay: float) -> F64:
    """Merge each window of ``num_newer`` rows in ``newer`` with the window of ``older`` rows before it.

    Carried rows: the total, mean or maximum first; then squares (and cubes or trends), or the age of the
    maximum; for a correlation the means of x and y, their squares, and the products. What stands in the first
    columns of the result, where a part is missing, means nothing: ``rolling`` clears it at the end.
    """
    out = np.empty_like(newer)
    nums = (num_older, num_newer)
    if kind == TOTAL:
        merge_total(older[0], newer[0], out[0], nums, 1.0)
    elif kind == EXPONENTIAL:
        merge_total(older[0], newer[0], out[0], nums, decay**num_newer)
    elif kind in (HIGHEST, LAST_HIGHEST):
        merge_highest(older[0], newer[0], out[0], nums)
        if kind == LAST_HIGHEST:
            merge_age(older[0], newer[0], older[1], newer[1], out[1], nums)
    elif kind == CORRELATION:
        for row in range(2):
            merge_mean(older[row], newer[row], out[row], nums)
            merge_squares(older[row], newer[row], older[row + 2], newer[row + 2], out[row + 2], nums)
        merge_products(older, newer, out[4], nums)
    else:
        merge_mean(older[0], newer[0], out[0], nums)
        if kind != MEAN:
            merge_squares(older[0], newer[0], older[1], newer[1], out[1], nums)
        if kind == SKEW:
            merge_cubes(older, newer, out[2], nums)
        if kind == FIT:
            merge_trends(older[0], newer[0], older[2], newer[2], out[2], nums)
    return out


@kernel
def aligned(older: F64, newer: F64, nums: tuple[int, int]) -> tuple[F64, F64]:
    """Cut one carried row of the older and of the newer parts so that what belongs together has one index."""
    return older[: len(older) - nums[1]], newer[nums[1] :]


@kernel
def merge_total(older: F64, newer: F64, out: F64, nums: tuple[int, int], weight: float) -> None:
    """Add; with a weight below 1 the older part counts less."""
    a, b = aligned(older, newer, nums)
    total = out[nums[1] :]
    for i in range(len(total)):
        total[i] = b[i] + weight * a[i]


@kernel
def merge_mean(older: F64, newer: F64, out: F64, nums: tuple[int, int]) -> None:
    """Average, in a form that gives exactly the value of equal parts."""
    a, b = aligned(older, newer, nums)
    mean = out[nums[1] :]
    weight = nums[0] / (nums[0] + nums[1])
    for i in range(len(mean)):
        mean[i] = b[i] + weight * (a[i] - b[i])


@kernel
def merge_highest(older: F64, newer: F64, out: F64, nums: tuple[int, int]) -> None:
    """Take the larger; a missing value makes the window missing."""
    a, b = aligned(older, newer, nums)
    top = out[nums[1] :]
    for i in range(len(top)):
        top[i] = a[i] if a[i] > b[i] or a[i] != a[i] else b[i]


@kernel
def merge_age(
    older: F64, newer: F64, age_older: F64, age_newer: F64, out: F64, nums: tuple[int, int]
) -> None:
    """Remember how many rows ago the maximum was; of equal ones the newest."""
    a, b = aligned(older, newer, nums)
    age_a, age_b = aligned(age_older, age_newer, nums)
    age = out[nums[1] :]
    for i in range(len(age)):
        age[i] = age_a[i] + nums[1] if a[i] > b[i] or a[i] != a[i] else age_b[i]


@kernel
def merge_squares(
    older: F64, newer: F64, squares_older: F64, squares_newer: F64, out: F64, nums: tuple[int, int]
) -> None:
    """Add squared deviations from the mean; ``older`` and ``newer`` are the means."""
    a, b = aligned(older, newer, nums)
    squares_a, squares_b = aligned(squares_older, squares_newer, nums)
    squares = out[nums[1] :]
    scale = nums[0] * nums[1] / (nums[0] + nums[1])
    for i in range(len(squares)):
        step = b[i] - a[i]
        squares[i] = squares_a[i] + squares_b[i] + step * step * scale


@kernel
def merge_cubes(older: F64, newer: F64, out: F64, nums: tuple[int, int]) -> None:
    """Add cubed deviations from the mean; carried are means, squares, cubes."""
    a, b = aligned(older[0], newer[0], nums)
    squares_a, squares_b = aligned(older[1], newer[1], nums)
    cubes_a, cubes_b = aligned(older[2], newer[2], nums)
    cubes = out[nums[1] :]
    num = nums[0] + nums[1]
    share_a, share_b = nums[0] / num, nums[1] / num
    scale = nums[0] * share_b * (share_a - share_b)
    for i in range(len(cubes)):
        step = b[i] - a[i]
        mixed = 3.0 * step * (share_a * squares_b[i] - share_b * squares_a[i])
        cubes[i] = cubes_a[i] + cubes_b[i] + step * step * step * scale + mixed


@kernel
def merge_trends(
    older: F64, newer: F64, trends_older: F64, trends_newer: F64, out: F64, nums: tuple[int, int]
) -> None:
    """Add products of deviations with row numbers; the parts' middles lie half of all rows apart."""
    a, b = aligned(older, newer, nums)
    trends_a, trends_b = aligned(trends_older, trends_newer, nums)
    trends = out[nums[1] :]
    scale = nums[0] * nums[1] / 2
    for i in range(len(trends)):
        trends[i] = trends_a[i] + trends_b[i] + (b[i] - a[i]) * scale


@kernel
def merge_products(older: F64, newer: F64, out: F64, nums: tuple[int, int]) -> None:
    """Add products of the deviations of two series; carried are two means, two squares, products."""
    x_a, x_b = aligned(older[0], newer[0], nums)
    y_a, y_b = aligned(older[1], newer[1], nums)
    products_a, products_b = aligned(older[4], newer[4], nums)
    products = out[nums[1] :]
    scale = nums[0] * nums[1] / (nums[0] + nums[1])
    for i in range(len(products)):
        products[i] = products_a[i] + products_b[i] + (x_b[i] - x_a[i]) * (y_b[i] - y_a[i]) * scale


@kernel
def clear_rounding(mean: F64, spread: F64, n: int) -> None:
    """Set spreads to 0 that are nothing but rounding of the mean."""
    limit = n * ROUNDING * ROUNDING
    for i in range(len(mean)):
        spread[i] = 0.0 if spread[i] <= limit * mean[i] * mean[i] else spread[i]


@kernel
def clear_missing(top: F64, age: F64) -> None:
    """Set ages to NaN where the maximum is missing."""
    for i in range(len(top)):
        age[i] = age[i] if top[i] == top[i] else np.nan


@kernel
def lag(x: F64, n: int, borders: I64) -> F64:
    """Value ``n`` rows ago."""
    out = np.empty(len(x))
    before, result = x[: max(len(x) - n, 0)], out[n:]
    for i in range(len(result)):
        result[i] = before[i]
    clear_heads(out, borders, n)
    return out


@kernel
def change(x: F64, n: int, borders: I64) -> F64:
    """Difference to the value ``n`` rows ago."""
    out = np.empty(len(x))
    before, now, result = x[: max(len(x) - n, 0)], x[n:], out[n:]
    for i in range(len(result)):
        result[i] = now[i] - before[i]
    clear_heads(out, borders, n)
    return out


@kernel
def mean_deviation(x: F64, mean: F64, n: int, borders: I64) -> F64:
    """Mean of |x - mean of the window| over windows of ``n`` rows; ``mean`` holds the windows' means."""
    out = np.empty(len(x))
    for start in range(n - 1, len(x), TILE):
        stop = min(start + TILE, len(x))
        centre = mean[start:stop]
        result = out[start:stop]
        result[:] = 0.0
        for lag in range(n):
            value = x[start - lag : stop - lag]
            for i in range(len(result)):
                result[i] += abs(value[i] - centre[i])
        for i in range(len(result)):
            result[i] = 0.0 if result[i] <= n * ROUNDING * abs(centre[i]) else result[i] / n
    clear_heads(out, borders, n - 1)
    return out


@kernel
def rank(x: F64, n: int, borders: I64) -> F64:
    """Rank of the newest of ``n`` rows from 1 (lowest) to n, ties by their average, divided by n."""
    out = np.empty(len(x))
    for start in range(n - 1, len(x), TILE):
        stop = min(start + TILE, len(x))
        newest = x[start:stop]
        result = out[start:stop]
        result[:] = 1.0
        for lag in range(n):
            value = x[start - lag : stop - lag]
            for i in range(len(result)):
                # value - value is 0, or NaN where the value is missing: comparisons alone would hide that
                result[i] += (value[i] < newest[i]) + (value[i] <= newest[i]) + (value[i] - value[i])
        for i in range(len(result)):
            result[i] /= 2 * n
    clear_heads(out, borders, n - 1)
    return out


@kernel
def ratio(above: F64, below: F64) -> F64:
    """Quotients, 0 where ``below`` is 0 and ``above`` is a number."""
    out = np.empty(len(above))
    for i in range(len(above)):
        # above - above is 0, or NaN where it is missing
        out[i] = above[i] - above[i] if below[i] == 0.0 else above[i] / below[i]
    return out


@kernel
def clear_heads(x: F64 | F32, borders: I64, num_rows: int) -> None:
    """Set the first ``num_rows`` rows of each life to NaN."""
    for life in range(len(borders) - 1):
        for i in range(borders[life], min(borders[life] + num_rows, borders[life + 1])):
            x[i] = np.nan


@kernel
def write_rows(columns: F32, borders: I64, warmup: I32, out: F32, first_row: int, first_feature: int) -> None:
    """Turn columns, shape (G, B), into a part of the rows of ``out``, shape (R, F).

    Warm-up rows, and what is infinite, become NaN on the way; ``columns`` is used up.
    """
    num_features, num_rows = columns.shape
    for f in range(num_features):
        column = columns[f]
        for i in range(num_rows):
            column[i] = column[i] if abs(column[i]) < np.inf else np.float32(np.nan)
        clear_heads(column, borders, warmup[f])
    for start in range(0, num_rows, 64):  # 64 rows of `out` stay in the first-level cache
        stop = min(start + 64, num_rows)
        for f in range(num_features):
            column = columns[f][start:stop]
            target = out[first_row + start : first_row + stop, first_feature + f]
            for i in range(len(column)):
                target[i] = column[i]
