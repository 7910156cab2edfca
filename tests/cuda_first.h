/* The first GPU, open for all tests of a program, and which row computes what there. */
#ifndef SP_TESTS_CUDA_FIRST_H
#define SP_TESTS_CUDA_FIRST_H

#include "cuda_support.h"

static sp_device *gpu; /* NULL: there is none */

static inline int open_gpu(void **state) {
    (void)state;
    gpu = cuda_open_first();
    return 0;
}

static inline int close_gpu(void **state) {
    (void)state;
    sp_device_close(gpu);
    return 0;
}

static inline const char *row_of(const sp_attention *problem, sp_attention_pass pass) {
    const char *name = "";
    cuda_expect(sp_attention_choose(problem, pass, &name));
    return name;
}

static inline const char *row_of_shape(const attention_shape *shape, sp_attention_pass pass) {
    attention_case host;
    cuda_case ours;
    case_open(&host, shape);
    cuda_case_open(&ours, &host, gpu);
    const char *name = row_of(&ours.problem, pass);
    cuda_case_close(&ours);
    case_close(&host);
    return name;
}

static inline bool is_hopper(void) {
    attention_shape shape = cuda_shape(8, 64, SP_DTYPE_BF16);
    return gpu && strcmp(row_of_shape(&shape, SP_ATTENTION_FORWARD), "sm90") == 0;
}

#endif
