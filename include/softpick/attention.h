/* Attention with softpick and its family, on the caller's own memory.
 *
 *   score   s[t,j] = scale * row_factor(t) * <q[t], k[j]>          for the keys j that query t sees
 *   weight  w[t,j] = numerator(s[t,j]) / denominator(t)            by the normalizer below
 *   output  o[t]   = sum_j w[t,j] v[j]
 *
 * Query t of a sequence with T queries and S keys stands at position t + S - T: the last query sees the last key.
 *
 *      causal, T = 3, S = 5        window = 2 (with causal)
 *      keys  0 1 2 3 4             0 1 2 3 4
 *      q 0   x x x . .             . x x . .
 *      q 1   x x x x .             . . x x .
 *      q 2   x x x x x             . . . x x
 *
 * Query head h uses key/value head h / (H / Hkv).  A masked key adds nothing to numerator or denominator.
 * A row that sees no key, and in the softpick family a row without a positive score, gives exactly 0 and gradient
 * exactly 0.  A score of exactly 0 counts as not positive (weight 0, derivative from the left).
 *
 * Nothing here prints or keeps state.  The passes do not allocate: their workspace is asked for first.  The definition
 * and sp_attention_rows allocate what they need.
 * Stable: may only grow. */
#ifndef SOFTPICK_ATTENTION_H
#define SOFTPICK_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "softpick/status.h"
#include "softpick/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The normalizers.  u = e^s - 1, P = sum max(u,0), N = sum max(-u,0) over the keys a query sees. */
typedef enum sp_normalizer {
    SP_NORMALIZER_SOFTPICK = 0,         /* max(u,0) / (P + lambda*N + eps); lambda = 0 is ReLU-softmax */
    SP_NORMALIZER_SOFTMAX = 1,          /* e^s / sum e^s */
    SP_NORMALIZER_SOFTMAX_PLUS_ONE = 2, /* e^s / (1 + sum e^s) */
    SP_NORMALIZER_SOFTMAX_SINK = 3,     /* e^s / (e^sink[h] + sum e^s), sink learned */
    SP_NORMALIZER_RECTIFIED = 4,        /* softmax over the positive scores alone */
    SP_NORMALIZER_COUNT
} sp_normalizer;

/* "softpick", "softmax", "softmax_plus_one", "softmax_sink", "rectified"; "?" outside the enum. */
SP_API const char *sp_normalizer_name(sp_normalizer normalizer);
/* The normalizer of that name; SP_BAD_ARGUMENT with the list of names otherwise. */
SP_API SP_MUST_CHECK sp_status sp_normalizer_find(sp_normalizer *out, const char *name);

#define SP_EPS_DEFAULT 1e-6f

/* What forward can tell of each row beside its output, without a T x S matrix.  Each member is NULL where it is not
 * wanted, or (B,H,T) contiguous and overwritten. */
typedef struct sp_attention_statistics {
    float *mass;       /* sum of the row's weights */
    float *first_mass; /* weight on key 0 of the sequence; 0 where the row does not see it */
    float *entropy;    /* -sum p ln p of the weights divided by their sum, in nats; 0 for a row without weight */
    float *highest;    /* largest score, natural units; -inf for a row that sees nothing */
    int64_t *zeros;    /* keys seen whose weight is 0 by the formula: in softpick and rectified those whose score is
                          not positive, in the softmaxes none */
} sp_attention_statistics;

/* Liveness: which blocks of 16 queries x 16 keys hold a weight that is not 0.  A word covers 64 queries x 128 keys
 * of a sequence: bit 8 * (t % 64 / 16) + j % 128 / 16 stands for the block of query t and key j, both counted from
 * the sequence's begin.  Words are (n_sequences, H, ceil(max T / 64), ceil(max S / 128)) contiguous, the maxima over
 * the sequences (B of them, or the packed ones).  In the softmaxes a block is live if a query of it sees a key of it. */
enum { SP_LIVENESS_QUERIES = 64, SP_LIVENESS_KEYS = 128, SP_LIVENESS_BLOCK = 16 };

/* One attention problem.  Zero-fill it by sp_attention_init, then set what differs.
 * Dense: q (B,T,H,D), k (B,S,Hkv,D), v (B,S,Hkv,Dv), out (B,T,H,Dv); strides free except that the last dimension is
 * contiguous.  Packed sequences: B = 1, and cu_q, cu_k tell where each sequence begins in T and S.
 * Paged (decode alone): k (n_pages, page_size, Hkv, D), v (n_pages, page_size, Hkv, Dv), and page_table tells where
 * the keys of a sequence lie.
 * q, k, v, out and their gradients share one dtype: f32, bf16 or f16 (f64 in the definition alone). */
typedef struct sp_attention {
    size_t struct_bytes; /* set by sp_attention_init; members may be added at the end, the size tells which are there */

    sp_tensor q, k, v; /* read */
    sp_tensor out;     /* forward: overwritten; backward: read */
    float *lse;        /* (B,H,T) contiguous; forward: overwritten with log2 of the row's denominator, the one number
                          backward needs (+inf for a row that sees nothing).  NULL in a forward without backward */

    /* backward: read dout, overwrite the rest */
    sp_tensor dout;     /* as out */
    sp_tensor dq;       /* as q */
    sp_tensor dk;       /* as k */
    sp_tensor dv;       /* as v */
    float *dsink;       /* (H), accumulated into; NULL when not wanted, softmax_sink alone */
    float *drow_factor; /* (H), accumulated into; NULL when not wanted, with row_factor alone */

    sp_normalizer normalizer;
    float scale;             /* 0: 1/sqrt(D) */
    float lambda;            /* softpick alone: weight of N; 1 is softpick, 0 ReLU-softmax */
    float eps;               /* softpick alone, >= 0: added to the unshifted denominator */
    const float *sink;       /* (H), softmax_sink alone */
    const float *row_factor; /* (H) or NULL.  s_h: the scores of head h are multiplied by s_h * log(position + 2);
                                a query before the first key counts as position 0 */

    bool causal;
    int64_t window;             /* 0: none; w: a query sees the w keys that end at its own position, none after it */
    const int64_t *key_lengths; /* (B) or NULL: keys from key_lengths[b] on are not there (dense only) */
    const int64_t *cu_q,
        *cu_k;           /* (n_sequences + 1) or NULL; cu_k NULL: as cu_q.  cu[0] = 0, not decreasing, the last is
                                   T (of cu_k: S) */
    int64_t n_sequences; /* used with cu_q */

    const int64_t *page_table; /* (B, pages_per_sequence) or NULL: key j of sequence b is row j % page_size of page
                                  page_table[b][j / page_size].  With key_lengths alone; entries past a sequence's
                                  length are not read */
    int64_t pages_per_sequence;

    sp_attention_statistics statistics; /* forward */
    uint32_t *liveness; /* sp_attention_liveness_words of them, or NULL.  forward: overwritten; backward: read, and
                           what the dead blocks do not need is left out */
    bool compute_dead;  /* computes what is otherwise left out because its weights are 0, to the same bits where all
                           numbers are finite: for tests and measurements */

    /* tensors on a GPU (all on one): lse, sink, row_factor, statistics and their gradients lie there too, cu_q, cu_k,
     * key_lengths and page_table in host memory */
    void *stream;   /* cudaStream_t on which the pass is queued; the call does not wait for it */
    bool any_order; /* backward may add the shares of dq in any order: faster, but not the same bits each time */
} sp_attention;

/* Zeroes, sets struct_bytes, softpick with lambda 1 and the default eps, causal.  The first takes the size of the
 * caller's struct, which need not be the size that the library knows. */
SP_API void sp_attention_init_bytes(sp_attention *problem, size_t struct_bytes);
static inline void sp_attention_init(sp_attention *problem) { sp_attention_init_bytes(problem, sizeof *problem); }

/* Decode is forward for few queries against a long cache, k and v linear or paged: work is split along the keys, and
 * values of keys without weight are not read.  It writes out and lse; no packed sequences, statistics or liveness. */
typedef enum sp_attention_pass {
    SP_ATTENTION_FORWARD = 0,
    SP_ATTENTION_BACKWARD = 1,
    SP_ATTENTION_DECODE = 2,
    SP_ATTENTION_PASS_COUNT
} sp_attention_pass;

/* "forward", "backward", "decode"; "?" outside the enum. */
SP_API const char *sp_attention_pass_name(sp_attention_pass pass);

/* How many words `liveness` has for this problem. */
SP_API SP_MUST_CHECK sp_status sp_attention_liveness_words(const sp_attention *problem, int64_t *n_words);

/* Bytes of workspace (a multiple of 64) that the pass needs for this problem with `n_threads` threads (0: all of
 * OpenMP's). */
SP_API SP_MUST_CHECK sp_status sp_attention_workspace(const sp_attention *problem, sp_attention_pass pass,
                                                      int n_threads, int64_t *n_bytes);

/* Runs a pass.  `workspace`: as many bytes as asked for, 64-byte aligned (NULL if 0), on the tensors' device.  Checks every argument once.
 * Same inputs and variant give the same bits, with any number of threads. */
SP_API SP_MUST_CHECK sp_status sp_attention_forward(const sp_attention *problem, void *workspace, int64_t n_bytes,
                                                    int n_threads);
SP_API SP_MUST_CHECK sp_status sp_attention_backward(const sp_attention *problem, void *workspace, int64_t n_bytes,
                                                     int n_threads);
SP_API SP_MUST_CHECK sp_status sp_attention_decode(const sp_attention *problem, void *workspace, int64_t n_bytes,
                                                   int n_threads);

/* Name of the variant that would run the pass ("avx512", ...).  SP_ATTENTION=name in the environment forces a row or
 * makes the call fail; SP_CPU=avx2 takes CPU features away. */
SP_API SP_MUST_CHECK sp_status sp_attention_choose(const sp_attention *problem, sp_attention_pass pass,
                                                   const char **name);
/* The i-th row of the variant table, best first, and whether it takes the problem; *name NULL past the end.
 * `why` (may be NULL): the reason of a refusal, valid until the next call on this thread. */
SP_API bool sp_attention_variant(const sp_attention *problem, sp_attention_pass pass, int i, const char **name,
                                 const char **why);

/* The same by the definition: plain loops in double, any dtype including f64, no workspace.  What all else is
 * tested against; slow. */
SP_API SP_MUST_CHECK sp_status sp_attention_define_forward(const sp_attention *problem);
SP_API SP_MUST_CHECK sp_status sp_attention_define_decode(const sp_attention *problem);
SP_API SP_MUST_CHECK sp_status sp_attention_define_backward(const sp_attention *problem);

/* Attention weights of one query after another, without a T x S matrix: for measures and pictures.
 * Called once per (b,h,t) with weights[0..S) (0 for a masked key), scores[0..S) (NaN for a masked key) and the range
 * [first,end) of keys the query sees; scores are natural.  For packed sequences b counts the sequences, and t, S and the
 * range are those of the sequence.  Needs q and k alone.  Calls for one (b,h) come in order of t from one
 * thread; different (b,h) may run at the same time. */
typedef void (*sp_attention_row_function)(void *user, int64_t b, int64_t h, int64_t t, const float *weights,
                                          const float *scores, int64_t first, int64_t end);
SP_API SP_MUST_CHECK sp_status sp_attention_rows(const sp_attention *problem, sp_attention_row_function function,
                                                 void *user);

#ifdef __cplusplus
}
#endif
#endif
