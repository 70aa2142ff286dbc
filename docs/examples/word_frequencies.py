"""How often does each word occur in a large text? Several tasks count it where it lies.

The file is mapped, not read: each task gets a shared borrow of one part, and no byte is copied. Parts end where words
end.

    python docs/examples/word_frequencies.py [FILE]

Without FILE the text is made of the sources of the standard library of the Python that runs this.
"""

import os
import re
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import tether

WORD = re.compile(rb"[A-Za-z]+")
REST_OF_WORD = re.compile(rb"[A-Za-z]*")


def frequencies(path, parts=None):
    """Count the words of a file; `parts` is how many tasks share the work (None: two for each processor)."""
    parts = parts or 2 * (os.cpu_count() or 1)
    with tether.Region.open(path) as text:
        with text.share() as whole:
            cuts = word_boundaries(whole, parts)
        with tether.scope("counting") as s:
            handles = [s.spawn(count, text.share(start, stop)) for start, stop in pairwise(cuts)]
    return sum((handle.join() for handle in handles), Counter())


def word_boundaries(text, parts):
    """Cut `text` into ranges of about equal size, but never inside a word."""
    inner = (REST_OF_WORD.match(text, len(text) * n // parts).end() for n in range(1, parts))
    return [0, *inner, len(text)]


def count(part):
    """Count the words of one part: a task. Its borrow ends with it."""
    return Counter(WORD.findall(part))


def write_sample(path):
    """Write the sources of the standard library, one after another, into a file."""
    sources = Path(sysconfig.get_path("stdlib")).rglob("*.py")
    left_out = {"site-packages", "dist-packages", "test", "tests"}
    with open(path, "wb") as file:
        for source in sorted(sources):
            if source.is_file() and left_out.isdisjoint(source.parts):
                file.write(source.read_bytes())


def main(arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = arguments[0] if arguments else os.path.join(folder, "sources.txt")
        if not arguments:
            write_sample(path)
        start = time.perf_counter()
        found = frequencies(path)
        print(f"{os.path.getsize(path):,} bytes counted in {time.perf_counter() - start:.2f} s")
        print(f"{found.total():,} words, {len(found):,} different ones; the most frequent:")
        for word, times in found.most_common(10):
            print(f"{times:9,}  {word.decode()}")


if __name__ == "__main__":
    main(sys.argv[1:])
