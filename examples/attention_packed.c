/* Sequences of different lengths in one call, without padding, and what forward tells about each row.
 *     cc attention_packed.c $(pkg-config --cflags --libs softpick) */
#include <stdio.h>
#include <stdlib.h>

#include <softpick/attention.h>

enum { TOKENS = 6, H = 2, D = 4, N_SEQUENCES = 3 };

/* Numbers in [-2,2) that are always the same. */
static void fill(float *x, int n, unsigned seed) {
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 4194304 - 2;
    }
}

int main(void) {
    /* three sequences, of 3, 1 and 2 tokens, lie one behind the other as one batch entry: (1, TOKENS, H, D) */
    const int64_t begins[N_SEQUENCES + 1] = {0, 3, 4, TOKENS}, shape[4] = {1, TOKENS, H, D};
    float q[TOKENS * H * D], k[TOKENS * H * D], v[TOKENS * H * D], out[TOKENS * H * D];
    float mass[H * TOKENS]; /* (1,H,TOKENS) */
    int64_t zeros[H * TOKENS];
    fill(q, TOKENS * H * D, 1);
    fill(k, TOKENS * H * D, 2);
    fill(v, TOKENS * H * D, 3);

    sp_attention problem;
    sp_attention_init(&problem);
    problem.q = sp_tensor_view(q, SP_DTYPE_F32, 4, shape);
    problem.k = sp_tensor_view(k, SP_DTYPE_F32, 4, shape);
    problem.v = sp_tensor_view(v, SP_DTYPE_F32, 4, shape);
    problem.out = sp_tensor_view(out, SP_DTYPE_F32, 4, shape);
    problem.cu_q = begins; /* of the queries, and, as cu_k is not set, of the keys */
    problem.n_sequences = N_SEQUENCES;
    problem.statistics.mass = mass;
    problem.statistics.zeros = zeros;

    int64_t n_bytes;
    sp_status status = sp_attention_workspace(&problem, SP_ATTENTION_FORWARD, 0, &n_bytes);
    void *workspace = status == SP_OK ? aligned_alloc(64, (size_t)n_bytes) : NULL;
    if (workspace) status = sp_attention_forward(&problem, workspace, n_bytes, 0);
    free(workspace);
    if (status != SP_OK) return fprintf(stderr, "%s\n", sp_last_message()), 1;

    for (int i = 0; i < N_SEQUENCES; i++)
        for (int64_t t = begins[i]; t < begins[i + 1]; t++) {
            printf("sequence %d, token %d:", i, (int)(t - begins[i]));
            for (int h = 0; h < H; h++)
                printf("  head %d hands out %.3f, nothing to %d of %d keys", h, (double)mass[h * TOKENS + t],
                       (int)zeros[h * TOKENS + t], (int)(t - begins[i]) + 1);
            printf("\n");
        }
    return 0;
}
