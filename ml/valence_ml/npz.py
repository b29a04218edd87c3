"""Read and write NumPy's `npz` format without NumPy, which serving processes need not import.

Supports only what a release needs: flat little-endian arrays of bytes, 32-bit integers and doubles.
NumPy reads these files with `allow_pickle=False`; no pickled object can be read or written here.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import ast
import io
import struct
import sys
import zipfile
import zlib
from array import array
from collections.abc import Mapping
from typing import TypeAlias

_MAGIC = b"\x93NUMPY\x01\x00"
_TYPECODES = {"|u1": "B", "<i4": "i", "<f8": "d"}
_DESCRS = {typecode: descr for descr, typecode in _TYPECODES.items()}
_MEMBER_LIMIT = 256 * 1024 * 1024
"""Largest unpacked array in bytes: a small file must not exhaust the memory."""

# In quotes: `array` cannot be subscripted at run time before Python 3.12.
Array: TypeAlias = "array[int] | array[float]"


def write(arrays: Mapping[str, Array]) -> bytes:
    """Pack arrays by name. The bytes depend on nothing else: the timestamps are fixed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            shape = (len(values),)
            header = repr(
                {"descr": _DESCRS[values.typecode], "fortran_order": False, "shape": shape}
            ).encode()
            # The format pads the header, line break included, to a multiple of 64 bytes.
            header += b" " * (-(len(_MAGIC) + 2 + len(header) + 1) % 64) + b"\n"
            body = (
                _MAGIC + struct.pack("<H", len(header)) + header + _little_endian(values).tobytes()
            )
            archive.writestr(entry, body, compresslevel=9)
    return buffer.getvalue()


def read(data: bytes) -> dict[str, Array]:
    """Unpack what `write` packed; raise ValueError for anything else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if any(entry.file_size > _MEMBER_LIMIT for entry in entries):
                raise ValueError("an array is larger than any model")
            return {
                entry.filename.removesuffix(".npy"): _parse_array(archive.read(entry))
                for entry in entries
            }
    except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError) as error:
        raise ValueError(f"not an npz file: {error}") from None


def _parse_array(data: bytes) -> Array:
    if not data.startswith(_MAGIC):
        raise ValueError("not an array of format 1.0")
    (length,) = struct.unpack_from("<H", data, len(_MAGIC))
    start = len(_MAGIC) + 2
    try:
        header = ast.literal_eval(data[start : start + length].decode("latin-1"))
        descr, fortran, (count,) = header["descr"], header["fortran_order"], header["shape"]
        values: Array = array(_TYPECODES[descr])
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a flat array of a known type: {error}") from None
    values.frombytes(data[start + length :])
    if fortran or len(values) != count:
        raise ValueError("an array is shorter or longer than its header says")
    return _little_endian(values)


def _little_endian(values: Array) -> Array:
    if sys.byteorder == "big":  # pragma: no cover
        values = values[:]
        values.byteswap()
    return values
