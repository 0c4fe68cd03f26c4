"""Which candidates to try next, given what is known: all in the unit cube. Knows no jobs.

A Gaussian process (scikit-learn) says of each point what score to expect and how sure that is. The
*expected improvement* over the best score so far is large where much is to be hoped for: where the
score should be good, or where nobody has looked. Several points are chosen by believing of each
that it will be as expected, and going on from there.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

POOL = 2000
"""Random points among which the best is taken, and as many close to the best so far."""


class NotInstalled(RuntimeError):
    """scikit-learn, which is needed to learn anything, is not there."""


def scatter(count: int, dims: int, seed: int) -> np.ndarray:
    """``count`` points spread over the cube: one in each of ``count`` slices of each dimension."""
    random = np.random.default_rng(seed)
    slices = np.array([random.permutation(count) for _ in range(dims)]).T
    return (slices + random.random((count, dims))) / count


def check() -> None:
    """Raises NotInstalled, saying what to do, when there is no scikit-learn."""
    try:
        import sklearn.gaussian_process  # noqa: F401
    except ImportError as error:
        raise NotInstalled(
            f"scikit-learn is not installed ({error}): pip install scikit-learn (or '.[examples]' "
            "in the checkout), or choose the members at random, with --pick random"
        ) from None


def expected_improvement(mean: np.ndarray, spread: np.ndarray, best: float) -> np.ndarray:
    """How far below ``best`` scores of that mean and standard deviation are, on average."""
    from scipy.special import ndtr

    spread = np.maximum(spread, 1e-12)
    gain = best - mean
    z = gain / spread
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.maximum(gain * ndtr(z) + spread * density, 0.0)


def fitted(points: np.ndarray, scores: np.ndarray, seed: int) -> Any:
    """The Gaussian process that explains ``scores`` best."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    dims = points.shape[1]
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(
        np.full(dims, 0.3), [(0.05, 10.0)] * dims, nu=2.5
    ) + WhiteKernel(1e-4, (1e-8, 1e-1))
    process = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=2, random_state=seed
    )
    with warnings.catch_warnings():
        # A length that wants to be longer than allowed: that parameter hardly matters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(points, scores)
    return process


def propose(points: np.ndarray, scores: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The ``count`` points to try next, a row each. Raises NotInstalled."""
    check()
    from threadpoolctl import threadpool_limits  # which scikit-learn needs, too

    # Matrices of some dozen rows: threads would only wait for each other.
    with threadpool_limits(1):
        return _propose(points, scores, count, seed)


def _propose(points: np.ndarray, scores: np.ndarray, count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    known, values = points, scores
    process = fitted(known, values, seed)
    chosen: list[np.ndarray] = []
    for _ in range(count):
        near = known[np.argmin(values)] + random.normal(0.0, 0.05, (POOL, points.shape[1]))
        pool = np.vstack([random.random((POOL, points.shape[1])), np.clip(near, 0.0, 1.0)])
        mean, spread = process.predict(pool, return_std=True)
        best = int(np.argmax(expected_improvement(mean, spread, float(values.min()))))
        chosen.append(pool[best])
        # Believe it, without learning the lengths anew.
        known, values = np.vstack([known, pool[best]]), np.append(values, mean[best])
        process = process.__class__(process.kernel_, optimizer=None, normalize_y=True)
        process.fit(known, values)
    return np.array(chosen)
