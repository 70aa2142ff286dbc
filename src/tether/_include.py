"""Where other extensions find the C API."""

from __future__ import annotations

import os

__all__ = ["get_include"]


def get_include() -> str:
    """The folder of ``tether.h``, for ``include_dirs`` of an extension that uses the C API.

    >>> import os, tether
    >>> os.listdir(tether.get_include())
    ['tether.h']
    """
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")
