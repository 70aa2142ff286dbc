"""Blur a picture in place, several bands of rows at once: exclusive borrows, and NumPy arrays that are views of them.

Each pixel becomes the mean of the 3x3 around it. A band is blurred where it lies, but its first and last row need the
neighbours' rows *as they were*, which the neighbours' tasks overwrite. Nobody may look at a byte while somebody else
may write it: so these rows, the halo, are copied before the bands are given out.

    python docs/examples/image_filter.py [PICTURE.pgm]

PICTURE.pgm is a binary grey map (P5, 8 bits), and is changed. Without it, one is made in a temporary folder.
Needs NumPy.
"""

import os
import re
import sys
import tempfile
import time

import numpy as np

import tether

PGM = re.compile(rb"P5\s+(?:#.*\s+)*(\d+)\s+(\d+)\s+255\s")


def blur(region, width, rows):
    """Blur a picture of bytes, `width` in a row, in place; each task takes a band of `rows` rows."""
    edges = halos(region, width, rows)
    bands = region.chunks_mut(size=rows * width)
    with tether.scope("blurring") as s:
        for band, (above, below) in zip(bands, edges, strict=True):
            s.spawn(blur_band, band, above, below)


def halos(region, width, rows):
    """Copy the row before and the row after each band; at the picture's edge, the edge itself."""
    with region.share() as whole:
        image = np.frombuffer(whole, np.uint8).reshape(-1, width)
        height = len(image)
        return [
            (image[max(top - 1, 0)].tobytes(), image[min(top + rows, height - 1)].tobytes())
            for top in range(0, height, rows)
        ]


def blur_band(band, above, below):
    """Blur one band: a task. `rows` is a view of the borrow, and is gone when the task returns."""
    width = len(above)
    rows = np.frombuffer(band, np.uint8).reshape(-1, width)
    before, after = np.frombuffer(above, np.uint8), np.frombuffer(below, np.uint8)
    rows[:] = means(np.vstack([before, rows, after]))


def means(rows):
    """Return the 3x3 means of all rows but the first and the last, which only lend a hand."""
    wide = np.pad(rows, ((0, 0), (1, 1)), mode="edge").astype(np.uint16)
    down = wide[:-2] + wide[1:-1] + wide[2:]
    return ((down[:, :-2] + down[:, 1:-1] + down[:, 2:]) // 9).astype(np.uint8)


def blur_serially(image):
    """Return what `blur` makes of an array, without tasks."""
    return means(np.pad(image, ((1, 1), (0, 0)), mode="edge"))


def write_sample(path, width, height):
    """Write a picture: rings, and a grid over them."""
    y, x = np.ogrid[:height, :width]
    image = ((x * x + y * y) // 64 % 256).astype(np.uint8)
    image[::16] = image[:, ::16] = 255
    with open(path, "wb") as file:
        file.write(b"P5 %d %d 255\n" % (width, height) + image.tobytes())


def blur_file(path, tasks=None):
    """Blur a PGM file in place; return its width and height."""
    with open(path, "rb") as file:
        header = PGM.match(file.read(1024))
    if header is None:
        raise ValueError(f"{path} is not a binary PGM of 8 bits")
    width, height = int(header[1]), int(header[2])
    rows = -(-height // (tasks or os.cpu_count() or 1))
    with tether.Region.open(path, "r+", offset=header.end(), length=width * height) as region:
        blur(region, width, rows)
    return width, height


def main(arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = arguments[0] if arguments else os.path.join(folder, "sample.pgm")
        if not arguments:
            write_sample(path, 3000, 2000)
        start = time.perf_counter()
        width, height = blur_file(path)
        print(f"blurred {width} x {height} pixels of {os.path.basename(path)} in {time.perf_counter() - start:.3f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
