"""Units: the few that beamlines write, each as a factor to the SI unit of its kind. Pure.

"µm" and "μm" (two Unicode letters look alike) and "micron" are "um"; a unit that is not known is refused, never guessed.
"""

from beamtide.errors import BadInput

LENGTH, ANGLE, CURRENT, VOLTAGE, TIME, RATE = "length", "angle", "current", "voltage", "time", "rate"
NUMBER, ENERGY, POWER, PRESSURE, TEMPERATURE = "number", "energy", "power", "pressure", "temperature"
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
_DEGREE = 0.017453292519943295
_KNOWN: dict[str, tuple[str, float]] = {
    **{f"{prefix}m": (LENGTH, factor) for prefix, factor in _PREFIXES.items() if prefix != "k"},
    "cm": (LENGTH, 1e-2),
    "angstrom": (LENGTH, 1e-10),
    **{f"{prefix}rad": (ANGLE, factor) for prefix, factor in _PREFIXES.items() if prefix in ("", "m", "u", "n")},
    "deg": (ANGLE, _DEGREE),
    "mdeg": (ANGLE, 1e-3 * _DEGREE),
    **{f"{prefix}A": (CURRENT, factor) for prefix, factor in _PREFIXES.items() if prefix != "k"},
    **{f"{prefix}V": (VOLTAGE, factor) for prefix, factor in _PREFIXES.items() if prefix != "f"},
    **{f"{prefix}s": (TIME, factor) for prefix, factor in _PREFIXES.items() if prefix != "k"},
    "1/s": (RATE, 1.0),
    "Hz": (RATE, 1.0),
    "kHz": (RATE, 1e3),
    "MHz": (RATE, 1e6),
    "1": (NUMBER, 1.0),
    "counts": (NUMBER, 1.0),
    "%": (NUMBER, 1e-2),
    **{f"{prefix}eV": (ENERGY, factor * 1.602176634e-19) for prefix, factor in _PREFIXES.items() if prefix in ("", "k", "m")},
    **{f"{prefix}J": (ENERGY, factor) for prefix, factor in _PREFIXES.items() if prefix != "k"},
    **{f"{prefix}W": (POWER, factor) for prefix, factor in _PREFIXES.items()},
    "Pa": (PRESSURE, 1.0),
    "kPa": (PRESSURE, 1e3),
    "mbar": (PRESSURE, 1e2),
    "bar": (PRESSURE, 1e5),
    "K": (TEMPERATURE, 1.0),
    "mK": (TEMPERATURE, 1e-3),
}
_WORDS = {"m": ("meter", "metre"), "s": ("second",), "eV": ("electronvolt", "electron volt"), "V": ("volt",), "A": ("ampere",)}
_FULL = {"": "", "k": "kilo", "m": "milli", "u": "micro", "n": "nano", "p": "pico"}
_SPELLINGS = {
    f"{full}{word}{plural}": f"{prefix}{unit}"
    for unit, words in _WORDS.items()
    for word in words
    for plural in ("", "s")
    for prefix, full in _FULL.items()
} | {
    "micron": "um",
    "microns": "um",
    "angstroms": "angstrom",
    "Angstrom": "angstrom",
    "\u00c5": "angstrom",
    "\u212b": "angstrom",
    "ev": "eV",
    "kev": "keV",
    "joule": "J",
    "joules": "J",
    "sec": "s",
    "msec": "ms",
    "degree": "deg",
    "degrees": "deg",
    "radian": "rad",
    "radians": "rad",
    "count": "counts",
    "cts": "counts",
    "cps": "1/s",
    "counts/s": "1/s",
    "ph/s": "1/s",
}


def known(kind: str) -> tuple[str, ...]:
    """Return the units of a kind, as they are to be written."""
    return tuple(name for name, (its, _) in _KNOWN.items() if its == kind)


def canonical(unit: str) -> str:
    """Return a unit in the spelling of this module: "µm" is "um"; what is not known comes back as it is."""
    plain = unit.strip().replace("\u00b5", "u").replace("\u03bc", "u").replace("\u00b0", "deg")
    return _SPELLINGS.get(plain) or (plain if plain in _KNOWN else _SPELLINGS.get(plain.lower(), plain))


def kind_of(unit: str) -> str:
    """Return what a unit measures, such as "length"; BadInput for an unknown one."""
    return _entry(unit)[0]


def factor(unit: str, into: str) -> float:
    """Return by what a value in `unit` is multiplied to be in `into`; BadInput if they do not measure the same."""
    (kind, one), (other, two) = _entry(unit), _entry(into)
    if kind != other:
        raise BadInput(f"{unit!r} is a unit of {kind}, {into!r} of {other}: one cannot become the other")
    return one / two


def _entry(unit: str) -> tuple[str, float]:
    try:
        return _KNOWN[canonical(unit)]
    except KeyError:
        raise BadInput(f"the unit {unit!r} is not known; known are: {', '.join(_KNOWN)}") from None
