/* Softpick attention on one's own memory: one causal head of 4 queries, forward.
 *     cc attention.c $(pkg-config --cflags --libs softpick) */
#include <stdio.h>
#include <stdlib.h>

#include <softpick/attention.h>

int main(void) {
    enum { B = 1, T = 4, H = 1, D = 2 };
    float q[T * D] = {1, 0, 0, 1, -1, 0, 1, 1}, k[T * D] = {1, 0, 2, 1, 1, -1, 0, 2},
                v[T * D] = {1, 0, 0, 1, 2, 0, 0, 2};
    float out[T * D];
    const int64_t shape[4] = {B, T, H, D};

    sp_attention problem;
    sp_attention_init(&problem); /* softpick, causal */
    problem.q = sp_tensor_view(q, SP_DTYPE_F32, 4, shape);
    problem.k = sp_tensor_view(k, SP_DTYPE_F32, 4, shape);
    problem.v = sp_tensor_view(v, SP_DTYPE_F32, 4, shape);
    problem.out = sp_tensor_view(out, SP_DTYPE_F32, 4, shape);

    int64_t n_bytes;
    sp_status status = sp_attention_workspace(&problem, SP_ATTENTION_FORWARD, 0, &n_bytes);
    void *workspace = status == SP_OK ? aligned_alloc(64, (size_t)n_bytes) : NULL;
    if (workspace) status = sp_attention_forward(&problem, workspace, n_bytes, 0);
    free(workspace);
    if (status != SP_OK) return fprintf(stderr, "%s\n", sp_last_message()), 1;

    for (int t = 0; t < T; t++) printf("query %d: %8.5f %8.5f\n", t, (double)out[t * D], (double)out[t * D + 1]);
    return 0; /* query 2 has no positive score: its row is exactly 0 */
}
