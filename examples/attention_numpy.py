#!/usr/bin/env python3
"""Softpick attention on NumPy arrays, through ctypes and DLPack: nothing is copied and nothing compiled.

Usage: attention_numpy.py [LIBRARY]        libsoftpick.so where the loader finds it, otherwise named

Any library whose arrays have __dlpack__ (PyTorch, JAX, CuPy, ...) is read the same way.  Each row of the answer is held
against the formula.  Exit status 77: there is no NumPy.
"""

import ctypes
import sys

try:
    import numpy
except ImportError:
    print("NumPy is not installed")
    sys.exit(77)

FORWARD, MAX_DIMS = 0, 6


class Tensor(ctypes.Structure):
    """sp_tensor of softpick/tensor.h"""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("device", ctypes.c_int32),
        ("n_dims", ctypes.c_int64),
        ("shape", ctypes.c_int64 * MAX_DIMS),
        ("stride", ctypes.c_int64 * MAX_DIMS),
    ]


class Attention(ctypes.Structure):
    """sp_attention of softpick/attention.h"""

    _fields_ = [
        ("struct_bytes", ctypes.c_size_t),
        *((name, Tensor) for name in ("q", "k", "v", "out")),
        ("lse", ctypes.c_void_p),
        *((name, Tensor) for name in ("dout", "dq", "dk", "dv")),
        ("dsink", ctypes.c_void_p),
        ("drow_factor", ctypes.c_void_p),
        ("normalizer", ctypes.c_int),
        ("scale", ctypes.c_float),
        ("lambda", ctypes.c_float),
        ("eps", ctypes.c_float),
        ("sink", ctypes.c_void_p),
        ("row_factor", ctypes.c_void_p),
        ("causal", ctypes.c_bool),
        ("window", ctypes.c_int64),
        ("key_lengths", ctypes.c_void_p),
        ("cu_q", ctypes.c_void_p),
        ("cu_k", ctypes.c_void_p),
        ("n_sequences", ctypes.c_int64),
        ("page_table", ctypes.c_void_p),
        ("pages_per_sequence", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("mass", "first_mass", "entropy", "highest", "zeros")),
        ("liveness", ctypes.c_void_p),
        ("compute_dead", ctypes.c_bool),
    ]


def check(library, status):
    if status != 0:
        library.sp_last_message.restype = ctypes.c_char_p
        raise ValueError(library.sp_last_message().decode())


def view(library, array):
    """An sp_tensor of an array's own memory; the array must outlive it."""
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = array.__dlpack__()
    managed = pointer_of(capsule, b"dltensor")  # begins with its DLTensor
    tensor = Tensor()
    check(library, library.sp_tensor_from_dlpack(ctypes.byref(tensor), ctypes.c_void_p(managed)))
    return tensor  # the capsule goes, the array stays


def attention(library, q, k, v):
    """Causal softpick of q (B,T,H,D), k (B,S,Hkv,D), v (B,S,Hkv,Dv)."""
    out = numpy.empty(q.shape[:3] + v.shape[3:], q.dtype)
    problem, n_bytes = Attention(), ctypes.c_int64()
    library.sp_attention_init_bytes(ctypes.byref(problem), ctypes.c_size_t(ctypes.sizeof(problem)))
    for name, array in (("q", q), ("k", k), ("v", v), ("out", out)):
        setattr(problem, name, view(library, array))
    check(library, library.sp_attention_workspace(ctypes.byref(problem), FORWARD, 0, ctypes.byref(n_bytes)))
    memory = numpy.empty(n_bytes.value + 64, numpy.uint8)
    workspace = ctypes.c_void_p((memory.ctypes.data + 63) // 64 * 64)
    check(library, library.sp_attention_forward(ctypes.byref(problem), workspace, n_bytes, 0))
    return out


def formula(q, k, v, eps=1e-6):
    q, k, v = (x.astype(numpy.float64) for x in (q, k, v))
    group, (T, S) = q.shape[2] // k.shape[2], (q.shape[1], k.shape[1])
    scores = numpy.einsum("bthd,bshd->bhts", q, k.repeat(group, 2)) / numpy.sqrt(q.shape[3])
    scores[..., numpy.arange(S) > numpy.arange(T)[:, None] + S - T] = 0  # e^0 - 1 = 0: adds nothing
    u = numpy.expm1(scores)
    weights = numpy.maximum(u, 0) / (numpy.abs(u).sum(-1, keepdims=True) + eps)
    return numpy.einsum("bhts,bshd->bthd", weights, v.repeat(group, 2))


def main():
    library = ctypes.CDLL(sys.argv[1] if len(sys.argv) > 1 else "libsoftpick.so")
    random = numpy.random.default_rng(1)
    for dtype, allowed in ((numpy.float32, 1e-5), (numpy.float16, 2e-3)):
        q = random.standard_normal((2, 50, 4, 32)).astype(dtype)
        kv = random.standard_normal((2, 2, 60, 2, 32)).astype(dtype)
        # heads before tokens in memory: any strides will do while the last is 1
        q = numpy.ascontiguousarray(q.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
        worst = numpy.abs(attention(library, q, kv[0], kv[1]) - formula(q, kv[0], kv[1])).max()
        print(f"{numpy.dtype(dtype)}: largest difference from the formula {worst:.1e}")
        if not worst < allowed:
            sys.exit(1)


if __name__ == "__main__":
    main()
