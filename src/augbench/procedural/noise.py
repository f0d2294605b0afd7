"""Random fields for procedural surfaces and textures. A field depends on its arguments only.

Fields are H,W float32. Lengths are in pixels, frequencies in cycles per pixel, angles in radians from the x axis
(columns) towards the y axis (rows, downwards). Fields do not stretch with the image's aspect ratio unless stated.
"""

from __future__ import annotations

import numpy as np

Shape = tuple[int, int]
"""Height and width in pixels."""


def spectral(
    rng: np.random.Generator, shape: Shape, slope: float, lowest: float = 0.0, highest: float = 1.0
) -> np.ndarray:
    """Draw isotropic Gaussian noise of amplitude ``f ** -slope`` at frequency f: mean 0, standard deviation 1.

    Args:
        rng: the generator to draw from.
        shape: height and width of the field.
        slope: 0 is white noise, about 1 resembles a rough casting, about 2 soft clouds.
        lowest: remove lower frequencies (0.05 removes structures larger than 20 px).
        highest: remove higher frequencies.
    """
    row, column = _frequencies(shape)
    f = np.sqrt(row * row + column * column)
    gain = (f + 0.5 / max(shape)) ** np.float32(-slope)
    gain[(f < lowest) | (f > highest)] = 0
    return _filtered(rng, shape, gain)


def streaks(rng: np.random.Generator, shape: Shape, angle: float, length: float, width: float = 0.2) -> np.ndarray:
    """Draw noise that is elongated along ``angle`` like brushing marks: mean 0, standard deviation 1.

    ``length`` and ``width`` are the standard deviations of the blur along and across the streaks, in pixels.
    """
    row, column = _frequencies(shape)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = column * cos + row * sin, row * cos - column * sin
    gain = np.exp(np.float32(-2 * np.pi**2) * ((along * np.float32(length)) ** 2 + (across * np.float32(width)) ** 2))
    return _filtered(rng, shape, gain)


def relief(height: np.ndarray, angle: float) -> np.ndarray:
    """Shade a height field under grazing light: its slope along ``angle``, standard deviation 1."""
    rows, columns = np.gradient(height)
    return _standard(columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle)))


def perlin(rng: np.random.Generator, shape: Shape, cells: Shape, angle: float = 0.0) -> np.ndarray:
    """Draw Perlin's gradient noise (SIGGRAPH 1985, with the quintic fade of 2002), about in [-1, 1].

    The lattice has ``cells`` rows and columns over the image's height and width, which need not be multiples, and is
    rotated by ``angle`` about the centre. It is sampled at pixel centres: no corner is empty, nothing is resampled.
    """
    v, u = _turned(shape, cells, angle)  # H,W each: lattice coordinates, all >= 0
    row, column = np.floor(v), np.floor(u)
    y, x = v - row, u - column  # position inside the cell, [0, 1)
    pitch = int(column.max()) + 2
    direction = rng.random((int(row.max()) + 2) * pitch, dtype=np.float32) * np.float32(2 * np.pi)
    gy, gx = np.sin(direction), np.cos(direction)

    corner = (row * pitch + column).astype(np.intp)
    top = _mix(gx[corner] * x + gy[corner] * y, gx[corner + 1] * (x - 1) + gy[corner + 1] * y, fade_x := _fade(x))
    corner += pitch
    low = _mix(gx[corner] * x + gy[corner] * (y - 1), gx[corner + 1] * (x - 1) + gy[corner + 1] * (y - 1), fade_x)
    return _mix(top, low, _fade(y)) * np.float32(np.sqrt(2))


def _frequencies(shape: Shape) -> Shape:
    """Return row and column frequencies of ``rfft2`` as H,1 and 1,W/2+1 float32."""
    row = np.fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    return row, np.fft.rfftfreq(shape[1]).astype(np.float32)[None, :]


def _filtered(rng: np.random.Generator, shape: Shape, gain: np.ndarray) -> np.ndarray:
    """Draw white noise and filter it by ``gain`` in the frequency domain; remove the mean."""
    gain[0, 0] = 0
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    return _standard(np.fft.irfft2(spectrum * gain, s=shape))


def _standard(field: np.ndarray) -> np.ndarray:
    """Scale to standard deviation 1; leave a constant field (tiny images) unchanged."""
    return (field / (field.std() + 1e-8)).astype(np.float32)


def _turned(shape: Shape, cells: Shape, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return lattice coordinates (row, column) of pixel centres, shifted so that the minimum is in [0, 1)."""
    y = (np.arange(shape[0], dtype=np.float32) + np.float32(0.5 - shape[0] / 2))[:, None]
    x = (np.arange(shape[1], dtype=np.float32) + np.float32(0.5 - shape[1] / 2))[None, :]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    v = (y * cos - x * sin) * np.float32(cells[0] / shape[0]) + np.float32(cells[0] / 2)
    u = (y * sin + x * cos) * np.float32(cells[1] / shape[1]) + np.float32(cells[1] / 2)
    return v - np.floor(v.min()), u - np.floor(u.min())


def _fade(t: np.ndarray) -> np.ndarray:
    return t * t * t * (t * (t * 6 - 15) + 10)


def _mix(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    return a + t * (b - a)
