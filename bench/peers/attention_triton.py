"""Softpick attention in Triton, the peer that a user could write: dense, bf16, heads alike, T a multiple of 128.

The plain known way of a fused kernel: forward keeps a tile of queries and goes over the keys once; backward goes over the
scores twice, once for dq and once for dk and dv.  The shift c is max(0, running maximum), a masked score is 0, and the
one number that is saved of a row is log2 of its unshifted denominator.

    attention(q, k, v, causal)       q, k, v (B,H,T,D), contiguous; differentiable
"""
import torch
import triton
import triton.language as tl

LOG2_E = 1.4426950408889634
EPS = 1e-6


@triton.jit
def forward_part(q, k_at, v_at, shift, total, out, rows, channels, factor, first, end, D: tl.constexpr,
                 KEYS: tl.constexpr, MASKED: tl.constexpr):
    """Keys [first, end); in the part that is masked, a score of a key behind the query is 0 and so adds nothing."""
    for begin in range(first, end, KEYS):
        keys = begin + tl.arange(0, KEYS)
        at = keys[:, None] * D + channels[None, :]
        scores = tl.dot(q, tl.trans(tl.load(k_at + at))) * factor
        if MASKED:
            scores = tl.where(rows[:, None] >= keys[None, :], scores, 0.0)
        raised = tl.maximum(shift, tl.max(scores, 1))
        scale, one = tl.exp2(shift - raised), tl.exp2(-raised)
        u = tl.exp2(scores - raised[:, None]) - one[:, None]
        total = total * scale + tl.sum(tl.abs(u), 1)
        out = tl.dot(tl.maximum(u, 0.0).to(v_at.dtype.element_ty), tl.load(v_at + at), out * scale[:, None])
        shift = raised
    return shift, total, out


@triton.jit
def forward_kernel(q_at, k_at, v_at, out_at, lse_at, factor, eps, T, D: tl.constexpr, CAUSAL: tl.constexpr,
                   ROWS: tl.constexpr, KEYS: tl.constexpr):
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest rows first
    head = tl.program_id(1).to(tl.int64) * T * D
    rows, channels = tile * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    at = head + rows[:, None] * D + channels[None, :]
    q = tl.load(q_at + at)
    shift, total = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, D], tl.float32)
    seen = tile * ROWS if CAUSAL else T  # keys that all of these rows see
    shift, total, out = forward_part(q, k_at + head, v_at + head, shift, total, out, rows, channels, factor, 0, seen, D,
                                     KEYS, False)
    if CAUSAL:
        shift, total, out = forward_part(q, k_at + head, v_at + head, shift, total, out, rows, channels, factor, seen,
                                         seen + ROWS, D, KEYS, True)
    total += eps * tl.exp2(-shift)
    tl.store(out_at + at, (out / total[:, None]).to(out_at.dtype.element_ty))
    tl.store(lse_at + tl.program_id(1).to(tl.int64) * T + rows, shift + tl.log2(total))


@triton.jit
def delta_kernel(out_at, dout_at, delta_at, D: tl.constexpr, ROWS: tl.constexpr):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    at = rows[:, None] * D + tl.arange(0, D)[None, :]
    product = tl.load(out_at + at).to(tl.float32) * tl.load(dout_at + at).to(tl.float32)
    tl.store(delta_at + rows, tl.sum(product, 1))


@triton.jit
def dq_part(q, dout, lse, delta, k_at, v_at, dq, rows, channels, factor, first, end, D: tl.constexpr,
            KEYS: tl.constexpr, MASKED: tl.constexpr):
    for begin in range(first, end, KEYS):
        keys = begin + tl.arange(0, KEYS)
        at = keys[:, None] * D + channels[None, :]
        k = tl.load(k_at + at)
        scores = tl.dot(q, tl.trans(k)) * factor
        dp = tl.dot(dout, tl.trans(tl.load(v_at + at)))
        ds = tl.exp2(scores - lse[:, None]) * tl.where(scores > 0, dp - delta[:, None], delta[:, None])
        if MASKED:
            ds = tl.where(rows[:, None] >= keys[None, :], ds, 0.0)
        dq = tl.dot(ds.to(k.dtype), k, dq)
    return dq


@triton.jit
def dq_kernel(q_at, k_at, v_at, dout_at, lse_at, delta_at, dq_at, factor, scale, T, D: tl.constexpr,
              CAUSAL: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr):
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head, row_head = tl.program_id(1).to(tl.int64) * T * D, tl.program_id(1).to(tl.int64) * T
    rows, channels = tile * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    at = head + rows[:, None] * D + channels[None, :]
    q, dout = tl.load(q_at + at), tl.load(dout_at + at)
    lse, delta = tl.load(lse_at + row_head + rows), tl.load(delta_at + row_head + rows)
    dq = tl.zeros([ROWS, D], tl.float32)
    seen = tile * ROWS if CAUSAL else T
    dq = dq_part(q, dout, lse, delta, k_at + head, v_at + head, dq, rows, channels, factor, 0, seen, D, KEYS, False)
    if CAUSAL:
        dq = dq_part(q, dout, lse, delta, k_at + head, v_at + head, dq, rows, channels, factor, seen, seen + ROWS, D,
                     KEYS, True)
    tl.store(dq_at + at, (dq * scale).to(dq_at.dtype.element_ty))


@triton.jit
def dkdv_part(k, v, q_at, dout_at, lse_at, delta_at, dk, dv, keys, channels, factor, first, end, D: tl.constexpr,
              ROWS: tl.constexpr, MASKED: tl.constexpr):
    for begin in range(first, end, ROWS):
        rows = begin + tl.arange(0, ROWS)
        at = rows[:, None] * D + channels[None, :]
        q, dout = tl.load(q_at + at), tl.load(dout_at + at)
        lse, delta = tl.load(lse_at + rows), tl.load(delta_at + rows)
        scores = tl.dot(k, tl.trans(q)) * factor
        if MASKED:
            scores = tl.where(rows[None, :] >= keys[:, None], scores, 0.0)
        e = tl.exp2(scores - lse[None, :])
        weights = tl.where(scores > 0, e - tl.exp2(-lse)[None, :], 0.0)
        dv = tl.dot(weights.to(dout.dtype), dout, dv)
        dp = tl.dot(v, tl.trans(dout))
        ds = e * tl.where(scores > 0, dp - delta[None, :], delta[None, :])
        if MASKED:
            ds = tl.where(rows[None, :] >= keys[:, None], ds, 0.0)
        dk = tl.dot(ds.to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def dkdv_kernel(q_at, k_at, v_at, dout_at, lse_at, delta_at, dk_at, dv_at, factor, scale, T, D: tl.constexpr,
                CAUSAL: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr):
    tile = tl.program_id(0)
    head, row_head = tl.program_id(1).to(tl.int64) * T * D, tl.program_id(1).to(tl.int64) * T
    keys, channels = tile * KEYS + tl.arange(0, KEYS), tl.arange(0, D)
    at = head + keys[:, None] * D + channels[None, :]
    k, v = tl.load(k_at + at), tl.load(v_at + at)
    dk, dv = tl.zeros([KEYS, D], tl.float32), tl.zeros([KEYS, D], tl.float32)
    seen = 0  # from here on every row sees all of these keys
    if CAUSAL:
        seen = (tile + 1) * KEYS
        dk, dv = dkdv_part(k, v, q_at + head, dout_at + head, lse_at + row_head, delta_at + row_head, dk, dv, keys,
                           channels, factor, tile * KEYS, seen, D, ROWS, True)
    dk, dv = dkdv_part(k, v, q_at + head, dout_at + head, lse_at + row_head, delta_at + row_head, dk, dv, keys, channels,
                       factor, seen, T, D, ROWS, False)
    tl.store(dk_at + at, (dk * scale).to(dk_at.dtype.element_ty))
    tl.store(dv_at + at, dv.to(dv_at.dtype.element_ty))


def configs(choices):
    return [triton.Config({"ROWS": rows, "KEYS": keys}, num_warps=warps, num_stages=stages)
            for rows, keys, warps, stages in choices]


KEY = ["D", "CAUSAL"]
forward_tuned = triton.autotune(configs([(128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2)]), key=KEY)(forward_kernel)
dq_tuned = triton.autotune(configs([(128, 32, 4, 4), (128, 64, 8, 3)]), key=KEY)(dq_kernel)
dkdv_tuned = triton.autotune(configs([(32, 128, 4, 4), (64, 128, 8, 2)]), key=KEY)(dkdv_kernel)


class Softpick(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, causal):
        B, H, T, D = q.shape
        assert T % 128 == 0 and D in (16, 32, 64, 128, 256)
        out, lse = torch.empty_like(q), torch.empty(B, H, T, device=q.device, dtype=torch.float32)
        scale = D**-0.5
        forward_tuned[lambda meta: (T // meta["ROWS"], B * H)](q, k, v, out, lse, scale * LOG2_E, EPS, T, D, causal)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.causal, ctx.scale = causal, scale
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, out, lse = ctx.saved_tensors
        B, H, T, D = q.shape
        dq, dk, dv, delta = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.empty_like(lse)
        dout = dout.contiguous()
        delta_kernel[(B * H * T // 128,)](out, dout, delta, D, 128)
        arguments = (q, k, v, dout, lse, delta)
        numbers = (ctx.scale * LOG2_E, ctx.scale, T, D, ctx.causal)
        dq_tuned[lambda meta: (T // meta["ROWS"], B * H)](*arguments, dq, *numbers)
        dkdv_tuned[lambda meta: (T // meta["KEYS"], B * H)](*arguments, dk, dv, *numbers)
        return dq, dk, dv, None


def attention(q, k, v, causal):
    return Softpick.apply(q, k, v, causal)
