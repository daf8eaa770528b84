"""The largest and smallest numbers that the mathematics takes.

The largest double is 1.8e308. A precision in raw units is a weight times a feature squared, and the search for an
optimum squares gradients: a weight times a margin.
"""

LARGEST = 1e100
"""Of weights and offsets."""

LARGEST_FEATURE = 1e152
"""Of a cell of a design: sums of its squares are finite."""

SMALLEST_FEATURE = 1e-140
"""Of the largest cell of a column: below, its coefficient and the square of its unit are out of reach."""

LARGEST_COEFFICIENT = 1e150
"""Of a mean: what it gives with the largest feature is finite."""

LARGEST_COUNT = 2.0**53
"""Of a label that counts: to there whole numbers are doubles."""
