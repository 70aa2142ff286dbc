"""What describes a C function or its data, and what is said when one fails (cext/binding/callee.c, pyloop.c).

Nothing foreign is imported here: whoever hands over an object of ctypes, cffi or numba has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

from ._errors import NativeError

__all__ = ["data", "failed", "resolve"]

_NEEDS = (
    "pass signature='int (intptr_t, intptr_t, void *)' if that is what it is, or "
    "'int (void *, size_t, size_t, void *)' for one over memory"
)


def resolve(func: Any, signature: str | None) -> tuple[int, str]:
    """The address and the signature of a C function that is neither a capsule nor a LowLevelCallable."""
    if isinstance(func, int):
        if signature is None:
            raise ValueError(f"an address does not tell what is there: {_NEEDS}")
        return func, signature
    ctypes, cffi = sys.modules.get("ctypes"), sys.modules.get("_cffi_backend")
    if ctypes is not None and isinstance(func, ctypes._CFuncPtr):
        return _of_ctypes(ctypes, func, signature)
    if cffi is not None and isinstance(func, cffi._CDataBase):
        return _of_cffi(cffi, func, signature)
    made = getattr(func, "ctypes", None)  # of numba's @cfunc
    if ctypes is not None and made is not None and isinstance(made, ctypes._CFuncPtr):
        return _of_ctypes(ctypes, made, signature)
    if isinstance(getattr(func, "address", None), int):
        return resolve(func.address, signature)
    hint = ". A Python function runs with tether.par_for" if callable(func) else ""
    raise TypeError(
        "parallel_for needs a C function: a PyCapsule named by its signature, a scipy.LowLevelCallable, a function "
        f"pointer of ctypes or cffi, a numba @cfunc or an address, not {type(func).__name__}{hint}"
    )


def _of_ctypes(ctypes: Any, func: Any, signature: str | None) -> tuple[int, str]:
    address = ctypes.cast(func, ctypes.c_void_p).value or 0
    if signature is not None:
        return address, signature
    if func.argtypes is None:
        raise ValueError(f"argtypes of this ctypes function are not set: set them and restype, or {_NEEDS}")
    answer = "void" if func.restype is None else _name_of_ctypes(ctypes, func.restype)
    return address, f"{answer} ({', '.join([_name_of_ctypes(ctypes, kind) for kind in func.argtypes])})"


def _name_of_ctypes(ctypes: Any, kind: Any) -> str:
    if kind in (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p) or _is_pointer(ctypes, kind):
        return "void *"
    code = getattr(kind, "_type_", None)
    if isinstance(code, str) and code in "bhilqBHILQ":
        size = ctypes.sizeof(kind)
        return {4: "int", 8: "int64_t"}.get(size, f"int{8 * size}_t")
    return str(getattr(kind, "__name__", kind))  # a class with from_param, or a function that converts the answer


def _is_pointer(ctypes: Any, kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, ctypes._Pointer)


def _of_cffi(cffi: Any, func: Any, signature: str | None) -> tuple[int, str]:
    kind = cffi.typeof(func)
    if kind.kind != "function" and signature is None:
        raise ValueError(f"this cffi object is a {kind.cname!r}, not a pointer to a function: {_NEEDS}")
    return _number_of_cffi(cffi, func), signature or kind.cname


def _number_of_cffi(cffi: Any, pointer: Any) -> int:
    number: int = int(cffi.cast(cffi.new_primitive_type("uintptr_t"), pointer))
    return number


def data(value: Any) -> Any:
    """The address that ``value`` holds, as an int, or an object whose buffer is meant."""
    ctypes, cffi = sys.modules.get("ctypes"), sys.modules.get("_cffi_backend")
    if ctypes is not None:
        if isinstance(value, (ctypes.c_void_p, ctypes.c_char_p)):
            return ctypes.cast(value, ctypes.c_void_p).value or 0
        if isinstance(value, ctypes._Pointer):
            return ctypes.cast(value, ctypes.c_void_p).value or 0
    if cffi is not None and isinstance(value, cffi._CDataBase):
        return _number_of_cffi(cffi, value)
    try:
        memoryview(value).release()
    except TypeError:
        raise TypeError(
            "user_data must be None, an address, a PyCapsule, a pointer of ctypes or cffi, or an object with a buffer "
            f"(bytes, a NumPy array, a borrow), not {type(value).__name__}"
        ) from None
    return value


def failed(func: Any, code: int, begin: int, end: int, memory: bool) -> NativeError:
    """The error for a function that answered ``code``."""
    part = f"bytes {begin} to {end}" if memory else f"the numbers {begin} to {end}"
    name = getattr(func, "__name__", None)
    what = f"{name}()" if isinstance(name, str) else repr(func)
    return NativeError(
        f"{what} answered {code} for {part} (end excluded): what had begun has ended, and nothing more was begun. "
        "The function's own documentation says what the number means",
        func, code, (begin, end),
    )  # fmt: skip
