/* Forward, then the gradients, for a loss that is half the sum of squares of the output; one gradient is held against a
 * difference of two losses.  Forward leaves behind which blocks hold weights, so that backward passes over the rest.
 *     cc attention_backward.c $(pkg-config --cflags --libs softpick) -lm */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <softpick/attention.h>

enum { B = 2, T = 70, H = 4, H_KV = 2, D = 16, N_Q = B * T * H * D, N_K = B * T * H_KV * D };

static float q[N_Q], k[N_K], v[N_K], out[N_Q], lse[B * H * T], dq[N_Q], dk[N_K], dv[N_K];

/* Numbers in [-2,2) that are always the same. */
static void fill(float *x, int n, unsigned seed) {
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 4194304 - 2;
    }
}

/* Prints the library's sentence and leaves if a call failed. */
static void check(sp_status status) {
    if (status == SP_OK) return;
    fprintf(stderr, "%s\n", sp_last_message());
    exit(1);
}

/* The loss; `out`, lse and the liveness words are what backward needs. */
static double forward(const sp_attention *problem) {
    int64_t n_bytes;
    check(sp_attention_workspace(problem, SP_ATTENTION_FORWARD, 0, &n_bytes));
    void *workspace = aligned_alloc(64, (size_t)n_bytes);
    check(sp_attention_forward(problem, workspace, n_bytes, 0));
    free(workspace);
    double loss = 0;
    for (int i = 0; i < N_Q; i++) loss += 0.5 * (double)out[i] * (double)out[i];
    return loss;
}

static void backward(const sp_attention *problem) {
    int64_t n_bytes;
    check(sp_attention_workspace(problem, SP_ATTENTION_BACKWARD, 0, &n_bytes));
    void *workspace = aligned_alloc(64, (size_t)n_bytes);
    check(sp_attention_backward(problem, workspace, n_bytes, 0));
    free(workspace);
}

int main(void) {
    const int64_t q_shape[4] = {B, T, H, D}, k_shape[4] = {B, T, H_KV, D};
    fill(q, N_Q, 1);
    fill(k, N_K, 2);
    fill(v, N_K, 3);

    sp_attention problem;
    sp_attention_init(&problem);
    problem.q = sp_tensor_view(q, SP_DTYPE_F32, 4, q_shape);
    problem.k = sp_tensor_view(k, SP_DTYPE_F32, 4, k_shape); /* two query heads share a key/value head */
    problem.v = sp_tensor_view(v, SP_DTYPE_F32, 4, k_shape);
    problem.out = sp_tensor_view(out, SP_DTYPE_F32, 4, q_shape);
    problem.lse = lse;
    problem.dout = problem.out; /* of this loss, the output's gradient is the output */
    problem.dq = sp_tensor_view(dq, SP_DTYPE_F32, 4, q_shape);
    problem.dk = sp_tensor_view(dk, SP_DTYPE_F32, 4, k_shape);
    problem.dv = sp_tensor_view(dv, SP_DTYPE_F32, 4, k_shape);
    int64_t n_words;
    check(sp_attention_liveness_words(&problem, &n_words));
    uint32_t *words = malloc((size_t)n_words * sizeof *words);
    problem.liveness = words;

    printf("loss %.6f\n", forward(&problem));
    backward(&problem);

    double gradient = (double)dk[5], before = (double)k[5], step = 1.0 / 128;
    k[5] = (float)(before + step);
    double above = forward(&problem);
    k[5] = (float)(before - step);
    double below = forward(&problem), difference = (above - below) / (2 * step);
    printf("gradient %.4f, by differences %.4f\n", gradient, difference);
    free(words);
    return fabs(gradient - difference) < 1e-3 * fabs(gradient) ? 0 : 1;
}
