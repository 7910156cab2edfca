"""Exchanges a file with the reference implementation of safetensors.

    safetensors_exchange.py OURS THEIRS

Reads OURS by the package `safetensors`, checks every tensor's bytes against the rule of tests/checkpoint_support.h, and
writes the same tensors to THEIRS.  Exit code: 0 as it should be, 1 not, 77 the package is not installed.
"""

import ctypes
import sys

try:
    import safetensors
    from safetensors import deserialize, serialize_file
except ImportError:
    sys.exit(77)


def byte_of(seed, i):
    return (i * 131 + seed * 29 + (seed >> 8)) & 0xFF


# names in files -> names that the writer's interface takes
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}


def describe(dtype, shape, data):
    """What serialize_file takes for one tensor: from version 0.8 on a pointer, before that bytes."""
    if not hasattr(safetensors, "TensorSpec"):
        return {"dtype": dtype, "shape": shape, "data": data}
    held = ctypes.create_string_buffer(data, max(len(data), 1))
    KEPT.append(held)
    return safetensors.TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(held), data_len=len(data))


KEPT = []  # buffers that the pointers lead to


def main(ours, theirs):
    with open(ours, "rb") as file:
        tensors = deserialize(file.read())
    out = {}
    for name, tensor in tensors:
        seed = int(name.split(".")[1])
        expected = bytes(byte_of(seed, i) for i in range(len(tensor["data"])))
        if bytes(tensor["data"]) != expected:
            print(f"{name}: other bytes than were written", file=sys.stderr)
            return 1
        out[name] = describe(DTYPES[tensor["dtype"]], tensor["shape"], bytes(tensor["data"]))
    serialize_file(out, theirs, {"format": "pt"})
    print(len(out))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
