/* q, k and v of a model's layer as a file: what `softpick bench capture` writes and --pattern captured=FILE reads. */
#ifndef SP_CLI_BENCH_CAPTURED_H
#define SP_CLI_BENCH_CAPTURED_H

#include "base/status.h"
#include "softpick/tensor.h"

/* The file: safetensors q (B,T,H,D), k (B,T,Hkv,D), v (B,T,Hkv,Dv) of one layer, as attention gets them: after RoPE. */

/* Fills q (B,T,H,D), k (B,S,Hkv,D) and v (B,S,Hkv,Dv) on the host with the file's first S tokens; of q the last T of
 * them.  Sequences and key heads beyond the file's are its own again from the first on, and so are, among the query heads
 * that share a key head, those beyond the file's.  Head widths must be the file's. */
SP_MUST_CHECK sp_status bench_captured_fill(const char *path, const sp_tensor *q, const sp_tensor *k,
                                            const sp_tensor *v);

#endif
