"""The folder of captioned images: files, buckets and crops of the published configuration, by hand."""

import numpy as np
import pytest

from augbench.diffusion.captioned import bucket_of, cropped, instance_files, resolutions


def blank(width, height):
    return np.zeros((height, width, 3), np.uint8)


def test_buckets_of_stable_diffusion():
    """256 to 1024 in steps of 64, of at most 512 x 512 pixels; 1024 x 256 to 832 x 256 have the same height."""
    tall = [(256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576)]
    assert resolutions(512) == sorted([*tall, (512, 512), *((h, w) for w, h in tall)])


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((230, 630), (320, 768)),  # aspect .365: .417 is nearer than .308
        ((230, 646), (256, 832)),  # .356: nearer to .308
        ((512, 512), (512, 512)),
        ((256, 960), (256, 960)),  # a bucket itself
        ((640, 480), (576, 448)),
    ],
)
def test_an_image_goes_to_the_nearest_aspect(size, bucket):
    assert bucket_of(blank(*size), 512) == bucket


def test_an_image_is_enlarged_and_cropped_at_the_centre():
    """230 x 630 covers 320 x 768 as 320 x 877, of which 54 rows above and 55 below are cut: 39 of 630 each."""
    image = blank(230, 630)
    image[:36], image[36:42], image[-36:] = 255, 128, 255
    found = cropped(image, (320, 768))
    assert found.shape == (768, 320, 3)
    assert found[:2].mean() > 60 and found.max() < 160


def test_an_instance_has_both_mirror_images_as_jpeg():
    image = np.random.default_rng(0).integers(0, 255, (63, 23, 3), dtype=np.uint8)
    smooth = np.linspace(0, 250, 63 * 23 * 3, dtype=np.uint8).reshape(63, 23, 3)
    files = instance_files(smooth)
    for file, exact in zip(files, (smooth, smooth[:, ::-1], smooth[::-1]), strict=True):
        assert file.shape == exact.shape and 0 < np.abs(file.astype(int) - exact).max() < 40
    assert not (instance_files(image)[0] == image).all()  # noise shows the loss of JPEG
