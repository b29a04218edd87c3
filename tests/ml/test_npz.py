"""NPZ files are compatible with NumPy and hold only flat arrays of numbers."""

import io
from array import array

import numpy as np
import pytest

from valence_ml import npz

ARRAYS = {
    "bytes": array("B", b"\x00\xff\n"),
    "integers": array("i", [-(2**31), 0, 2**31 - 1]),
    "doubles": array("d", [0.1, -0.0, 1e-308, float("inf")]),
    "empty": array("d"),
}


def saved(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def test_arrays_come_back_the_same() -> None:
    """Reading returns what was written, bit for bit; the bytes do not depend on the time."""
    data = npz.write(ARRAYS)
    assert npz.read(data) == ARRAYS
    assert npz.write(ARRAYS) == data


def test_numpy_reads_it_without_pickle() -> None:
    """The file is an ordinary NPZ file."""
    with np.load(io.BytesIO(npz.write(ARRAYS)), allow_pickle=False) as loaded:
        for name, values in ARRAYS.items():
            assert loaded[name].tolist() == values.tolist()


def test_numpy_writes_what_is_read() -> None:
    """An array written by NumPy can be read."""
    assert npz.read(saved(x=np.array([1.5, 2.5]))) == {"x": array("d", [1.5, 2.5])}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        npz.write(ARRAYS)[:-30],
        npz.write(ARRAYS)[:200],
        saved(x=np.array([{}], dtype=object)),
        saved(x=np.zeros((2, 2))),
        saved(x=np.float64(1.0)),
        saved(x=np.zeros(2, dtype=np.float32)),
        saved(x=np.zeros(2, dtype=">f8")),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    """Damage, pickled objects, matrices and other types are a ValueError."""
    with pytest.raises(ValueError, match=r"npz|array"):
        npz.read(data)


def test_any_damage_is_a_value_error_or_found_by_the_checksum() -> None:
    """A changed byte anywhere raises nothing but ValueError."""
    data = npz.write(ARRAYS)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        try:
            npz.read(bytes(damaged))
        except ValueError:
            continue
