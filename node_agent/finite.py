"""Whether the numbers in a chunk of a tensor are finite, without making a copy of it.

A safetensors file may hold NaN and infinity, and one NaN weight makes every answer NaN. Read as integers, the
positive NaNs and infinities of an IEEE format are its largest signed values and the negative ones its largest
unsigned values, so two maxima decide: a pass each over memory, no temporary.
"""

from __future__ import annotations

import numpy as np

from treaty.errors import InvalidInput

# dtype → signed view, its first non-finite value, unsigned view, its first non-finite value.
_LIMITS: dict[str, tuple[str, int, str, int]] = {
    "F64": ("<i8", 0x7FF0 << 48, "<u8", 0xFFF0 << 48),
    "F32": ("<i4", 0x7F80_0000, "<u4", 0xFF80_0000),
    "BF16": ("<i2", 0x7F80, "<u2", 0xFF80),
    "F16": ("<i2", 0x7C00, "<u2", 0xFC00),
    "F8_E5M2": ("i1", 0x7C, "u1", 0xFC),
    # This format has no infinity and one NaN for each sign.
    "F8_E4M3": ("i1", 0x7F, "u1", 0xFF),
}


def check_values(data: bytes, dtype: str) -> None:
    """Refuse NaN and infinity in whole elements of `dtype`; types that are not floats have neither.

    Raises: InvalidInput: there is one.
    """
    limits = _LIMITS.get(dtype)
    if limits is None or not data:
        return
    signed, first_positive, unsigned, first_negative = limits
    if (
        np.frombuffer(data, np.dtype(signed)).max() >= first_positive
        or np.frombuffer(data, np.dtype(unsigned)).max() >= first_negative
    ):
        raise InvalidInput("a tensor holds NaN or infinity")
