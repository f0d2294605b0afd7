"""KID and nearest neighbours against loops written out."""

import numpy as np
import pytest

from augbench.metrics.fidelity import kid, nearest


def slow_kid(real, made):
    def kernel(x, y):
        return (float(np.dot(x, y)) / len(x) + 1) ** 3

    def within(rows):
        pairs = [kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(a, b) for a in real for b in made]
    return within(real) + within(made) - 2 * sum(across) / len(across)


def test_kid_is_that_of_the_definition():
    draw = np.random.default_rng(0)
    real, made = draw.normal(size=(7, 5)), draw.normal(1, 2, size=(9, 5))
    assert kid(real, made) == pytest.approx(slow_kid(real, made), rel=1e-12)
    assert kid(real.astype(np.float32), made) == pytest.approx(slow_kid(real, made), rel=1e-5)


def test_kid_is_about_zero_for_one_distribution_and_grows_with_distance():
    draw = np.random.default_rng(1)
    real, same = draw.normal(size=(2, 400, 8))
    values = [kid(real, same + shift) for shift in (0.0, 0.5, 1.0)]
    assert abs(values[0]) < 0.02 < values[1] < values[2]


def test_kid_needs_pairs():
    with pytest.raises(ValueError, match="two"):
        kid(np.zeros((1, 3)), np.zeros((4, 3)))


def test_nearest():
    a, b = np.array([[0.0, 0], [3, 4]]), np.array([[0.0, 1], [3, 4], [9, 9]])
    assert nearest(a, b) == pytest.approx([1, 0])
    assert nearest(b) == pytest.approx([np.sqrt(18), np.sqrt(18), np.sqrt(61)])
