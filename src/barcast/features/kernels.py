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
from barcast.features.compilation import kernel

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
    powers = np.empty((num_carried, len(x)))  # windows of 1, 2, 4, ... rows
    powers[0][:] = x
    for k in range(1, num_carried):
        powers[k][:] = 0.0  # one row has no spread, and is its own extreme
    if kind == CORRELATION:
        powers[1][:] = y
    result = powers
    size = 1
    covered = 0
    while size <= len(x):
        if n & size:
            result = merged(powers, size, result, covered, kind, decay) if covered else powers
            covered += size
        if covered == n:
            break
        powers = merged(powers, size, powers, size, kind, decay)
        size *= 2
    if result is powers and n == 1:
        result = powers.copy()  # it may be the caller's column
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
def merged(older: F64, num_older: int, newer: F64, num_newer: int, kind: int, decay: float) -> F64:
    """Merge each window of ``num_newer`` rows in ``newer`` with the window of ``older`` rows before it.

    Carried rows: the total, mean or maximum first; then squares (and cubes or trends), or the age of the
    maximum; for a correlation the means of x and y, their squares, and the products. What stands in the first
    columns of the result, where a part is missing, means nothing: ``rolling`` clears it at the end.
    """
    out = np.empty_like(newer)
    nums = (num_older, num_newer)
    if kind == TOTAL:
        merge_total(older, newer, out, num_newer, 1.0)
    elif kind == EXPONENTIAL:
        merge_total(older, newer, out, num_newer, decay**num_newer)
    elif kind in (HIGHEST, LAST_HIGHEST):
        merge_highest(older, newer, out, num_newer)
        if kind == LAST_HIGHEST:
            merge_age(older, newer, out, num_newer)
    elif kind == CORRELATION:
        merge_mean(older, newer, out, nums, 0)
        merge_mean(older, newer, out, nums, 1)
        merge_squares(older, newer, out, nums, 0, 2)
        merge_squares(older, newer, out, nums, 1, 3)
        merge_products(older, newer, out, nums)
    else:
        merge_mean(older, newer, out, nums, 0)
        if kind != MEAN:
            merge_squares(older, newer, out, nums, 0, 1)
        if kind == SKEW:
            merge_cubes(older, newer, out, nums)
        if kind == FIT:
            merge_trends(older, newer, out, nums)
    return out


@kernel
def aligned(older: F64, newer: F64, row: int, num_newer: int) -> tuple[F64, F64]:
    """Return one carried row of the older and of the newer parts, part for part.

    ``x[row][a:b]`` is contiguous for the compiler, ``x[:, a:b][row]`` is not, and its loops stay scalar.
    """
    return older[row][: older.shape[1] - num_newer], newer[row][num_newer:]


@kernel
def merge_total(older: F64, newer: F64, out: F64, num_newer: int, weight: float) -> None:
    """Add; with a weight below 1 the older part counts less."""
    a, b = aligned(older, newer, 0, num_newer)
    total = out[0][num_newer:]
    for i in range(len(total)):
        total[i] = b[i] + weight * a[i]


@kernel
def merge_mean(older: F64, newer: F64, out: F64, nums: tuple[int, int], row: int) -> None:
    """Average, in a form that gives exactly the value of equal parts."""
    a, b = aligned(older, newer, row, nums[1])
    mean = out[row][nums[1] :]
    weight = nums[0] / (nums[0] + nums[1])
    for i in range(len(mean)):
        mean[i] = b[i] + weight * (a[i] - b[i])


@kernel
def merge_highest(older: F64, newer: F64, out: F64, num_newer: int) -> None:
    """Take the larger; a missing value makes the window missing."""
    a, b = aligned(older, newer, 0, num_newer)
    top = out[0][num_newer:]
    for i in range(len(top)):
        top[i] = a[i] if a[i] > b[i] or a[i] != a[i] else b[i]


@kernel
def merge_age(older: F64, newer: F64, out: F64, num_newer: int) -> None:
    """Remember how many rows ago the maximum was; of equal ones the newest."""
    a, b = aligned(older, newer, 0, num_newer)
    age_a, age_b = aligned(older, newer, 1, num_newer)
    age = out[1][num_newer:]
    for i in range(len(age)):
        age[i] = age_a[i] + num_newer if a[i] > b[i] or a[i] != a[i] else age_b[i]


@kernel
def merge_squares(older: F64, newer: F64, out: F64, nums: tuple[int, int], mean: int, row: int) -> None:
    """Add squared deviations from the mean."""
    a, b = aligned(older, newer, mean, nums[1])
    squares_a, squares_b = aligned(older, newer, row, nums[1])
    squares = out[row][nums[1] :]
    scale = nums[0] * nums[1] / (nums[0] + nums[1])
    for i in range(len(squares)):
        step = b[i] - a[i]
        squares[i] = squares_a[i] + squares_b[i] + step * step * scale


@kernel
def merge_cubes(older: F64, newer: F64, out: F64, nums: tuple[int, int]) -> None:
    """Add cubed deviations from the mean."""
    a, b = aligned(older, newer, 0, nums[1])
    squares_a, squares_b = aligned(older, newer, 1, nums[1])
    cubes_a, cubes_b = aligned(older, newer, 2, nums[1])
    cubes = out[2][nums[1] :]
    num = nums[0] + nums[1]
    share_a, share_b = nums[0] / num, nums[1] / num
    scale = nums[0] * share_b * (share_a - share_b)
    for i in range(len(cubes)):
        step = b[i] - a[i]
        mixed = 3.0 * step * (share_a * squares_b[i] - share_b * squares_a[i])
        cubes[i] = cubes_a[i] + cubes_b[i] + step * step * step * scale + mixed


@kernel
def merge_trends(older: F64, newer: F64, out: F64, nums: tuple[int, int]) -> None:
    """Add products of deviations with row numbers; the parts' middles lie half of all rows apart."""
    a, b = aligned(older, newer, 0, nums[1])
    trends_a, trends_b = aligned(older, newer, 2, nums[1])
    trends = out[2][nums[1] :]
    scale = nums[0] * nums[1] / 2
    for i in range(len(trends)):
        trends[i] = trends_a[i] + trends_b[i] + (b[i] - a[i]) * scale


@kernel
def merge_products(older: F64, newer: F64, out: F64, nums: tuple[int, int]) -> None:
    """Add products of the deviations of two series."""
    x_a, x_b = aligned(older, newer, 0, nums[1])
    y_a, y_b = aligned(older, newer, 1, nums[1])
    products_a, products_b = aligned(older, newer, 4, nums[1])
    products = out[4][nums[1] :]
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
    out[n:] = x[: max(len(x) - n, 0)]
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
        x[borders[life] : min(borders[life] + num_rows, borders[life + 1])] = np.nan


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
