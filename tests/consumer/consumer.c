/* A program outside the source tree: one row of softpick, checked against the formula. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <softpick/softpick.h>

int main(void) {
    float q[1] = {1}, k[3] = {-1, 0, 2}, v[3] = {10, 20, 30}, out[1] = {NAN};
    sp_attention problem;
    sp_attention_init(&problem);
    problem.q = sp_tensor_view(q, SP_DTYPE_F32, 4, (int64_t[]){1, 1, 1, 1});
    problem.k = sp_tensor_view(k, SP_DTYPE_F32, 4, (int64_t[]){1, 3, 1, 1});
    problem.v = sp_tensor_view(v, SP_DTYPE_F32, 4, (int64_t[]){1, 3, 1, 1});
    problem.out = sp_tensor_view(out, SP_DTYPE_F32, 4, (int64_t[]){1, 1, 1, 1});

    int64_t n_bytes = 0;
    sp_status status = sp_attention_workspace(&problem, SP_ATTENTION_FORWARD, 1, &n_bytes);
    void *workspace = status == SP_OK && n_bytes > 0 ? aligned_alloc(64, (size_t)(n_bytes + 63) / 64 * 64) : NULL;
    if (status == SP_OK) status = sp_attention_forward(&problem, workspace, n_bytes, 1);
    free(workspace);
    if (status != SP_OK) {
        fprintf(stderr, "%s\n", sp_last_message());
        return 1;
    }
    double positive = exp(2) - 1, negative = 1 - exp(-1);
    double expected = 30 * positive / (positive + negative + SP_EPS_DEFAULT);
    printf("softpick %s: %.6f, by the formula %.6f\n", sp_version(), (double)out[0], expected);
    return fabs((double)out[0] - expected) < 1e-4 ? 0 : 1;
}
