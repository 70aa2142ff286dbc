"""Figures as a reader likes them."""

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def figure(value: float, unit: str) -> str:
    """Three digits and a unit: `value` is in seconds ("s"), bytes ("B"), or a count ("")."""
    if unit == "s":
        scale, name = next(((scale, name) for scale, name in _SECONDS if abs(value) >= scale), _SECONDS[-1])
        return f"{digits(value / scale)} {name}"
    if unit == "B":
        return f"{digits(value / 1024)} KiB" if abs(value) >= 10_000 else f"{value:,.0f} B"
    return f"{value:,.0f}"


def digits(value: float) -> str:
    """At least three significant digits, never an exponent."""
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{places}f}"
