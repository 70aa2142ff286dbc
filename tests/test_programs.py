"""The programs of docs/examples: what they compute equals what plain Python computes."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

import tether

PROGRAMS = Path(__file__).parents[1] / "docs" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", PROGRAMS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def words():
    return load("word_frequencies")


@pytest.fixture(scope="module")
def sources(words, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "sources.txt"
    words.write_sample(path)
    return path


@pytest.fixture(scope="module")
def np():
    return pytest.importorskip("numpy", reason="NumPy is not installed")


@pytest.fixture(scope="module")
def image(np):
    return load("image_filter")


@pytest.mark.parametrize("name", sorted(path.stem for path in PROGRAMS.glob("*.py")))
def test_program_runs_by_itself(name, run_python, request):
    if name == "image_filter":
        request.getfixturevalue("np")
    assert run_python(None, args=(str(PROGRAMS / f"{name}.py"),), check=True).out


@pytest.mark.parametrize("parts", [1, 7, None])
def test_words_of_a_large_text_are_counted_as_by_counter(words, sources, parts):
    text = sources.read_bytes()
    assert len(text) > 1_000_000
    # G2, G13: every task has counted, each its own range
    assert words.frequencies(sources, parts) == Counter(re.findall(rb"[A-Za-z]+", text))


@pytest.mark.parametrize("text", [b"one", b"   ", b"a b", b"ab" * 50 + b" c"])
def test_text_with_fewer_words_than_parts_is_counted_once(words, tmp_path, text):
    path = tmp_path / "small.txt"
    path.write_bytes(text)
    assert words.frequencies(path, 5) == Counter(text.split())


def test_parts_of_a_text_cover_it_and_cut_no_word(words, sources):
    text = sources.read_bytes()
    cuts = words.word_boundaries(text, 100)
    assert cuts == sorted(cuts)
    assert (cuts[0], cuts[-1], len(cuts)) == (0, len(text), 101)
    assert not [at for at in cuts[1:-1] if text[at - 1 : at + 1].isalpha()]


@pytest.mark.parametrize("rows", [1, 2, 7, 40, 64, 100])
def test_picture_blurred_in_bands_equals_the_serial_one(np, image, rows):
    picture = np.random.default_rng(7).integers(0, 256, (64, 50), np.uint8)
    with tether.Region(picture.size, name="picture") as region:
        with region.borrow_mut() as whole:
            whole[:] = picture.tobytes()
        image.blur(region, 50, rows)
        # G2, G14: all bands are back, and no view is left
        with region.share() as whole:
            assert bytes(whole) == image.blur_serially(picture).tobytes()


def test_picture_in_a_file_is_blurred_behind_its_header(np, image, tmp_path):
    path = tmp_path / "sample.pgm"
    image.write_sample(path, 301, 203)
    before = path.read_bytes()
    header = b"P5 301 203 255\n"
    picture = np.frombuffer(before, np.uint8, offset=len(header)).reshape(203, 301)
    assert image.blur_file(path, 4) == (301, 203)
    # G15: what lies before the range is as it was
    assert path.read_bytes() == header + image.blur_serially(picture).tobytes()


def test_file_that_is_no_picture_is_refused_and_unchanged(image, tmp_path):
    path = tmp_path / "other.pgm"
    path.write_bytes(b"P6 1 1 255\nabc")
    with pytest.raises(ValueError, match="not a binary PGM"):
        image.blur_file(path)
    assert path.read_bytes() == b"P6 1 1 255\nabc"
