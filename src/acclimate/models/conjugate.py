"""Conjugate gradients that know how far, in posterior standard deviations, there is to go."""

from collections.abc import Callable

import numpy as np

from acclimate.arrays import FloatArray

_PRODUCTS = 200
"""At most: a direction that is not found by then is still one that descends."""


_DOUBT = 4.0
"""How many times more than ``M`` says may be missing, squared, where a length is all that is wanted."""


def conjugate_gradients(
    product: Callable[[FloatArray], FloatArray],
    precondition: Callable[[FloatArray], FloatArray],
    b: FloatArray,
    *,
    forcing: float,
    close: float,
    within: float = 0.0,
    most: int = _PRODUCTS,
) -> tuple[FloatArray, float]:
    """An ``x`` with ``H x = b`` but for a part ``forcing`` of ``b``, or so close that it does not matter.

    In the lengths of ``H``, which are posterior standard deviations, after steps ``a`` along residuals ``r`` with
    ``u = M^-1 r`` (Hestenes and Stiefel, 1952, theorem 6:1)::

        |x|^2 = sum a r'u        |x - H^-1 b|^2 = r'H^-1 r ~ r'u

    Nothing better is looked for where the second is less than ``close``, as long as the first is more; nor where
    both together are certainly ``within`` a length.

    Args:
        product: ``H v``, with ``H`` positive definite.
        precondition: ``M^-1 r``, ``M`` near ``H``.
        b: the right-hand side.
        forcing: part of ``b`` that may be left over.
        close: length that ``x`` may miss, if ``M`` is good enough to tell.
        within: length that ``x`` is only to be told to have, by such an ``M``.
        most: products.

    Returns:
        ``x``, and the length that it misses, as ``M`` tells it with some doubt.
    """
    x, r = np.zeros_like(b), b
    u = precondition(r)
    missing, length, v = float(r @ u), 0.0, u
    enough = forcing * np.linalg.norm(b)
    for products in range(most):
        if np.linalg.norm(r) <= enough or missing <= close**2 < length:
            break
        if products and length + _DOUBT * missing <= within**2:
            break
        Hv = product(v)
        curvature = float(v @ Hv)
        if not (missing > 0.0 and 0.0 < curvature < np.inf):  # no lengths, in the digits there are
            return (x if products else v), np.inf
        a = missing / curvature
        x, r = x + a * v, r - a * Hv
        length += a * missing
        u = precondition(r)
        missing, before = float(r @ u), missing
        v = u + (missing / before) * v
    return x, float(np.sqrt(_DOUBT * np.abs(missing)))
