/* An attention case (attention_case.h) on a GPU: inputs are copied there with rows at multiples of 16 bytes, outputs
 * and all gaps are NaN; after a pass the outputs are copied back into the case, so that the same comparisons serve. */
#ifndef SP_TESTS_CUDA_SUPPORT_H
#define SP_TESTS_CUDA_SUPPORT_H

#include "attention_case.h"
#include "device/device.h"
#include "softpick/device.h"

typedef struct cuda_case {
    attention_case *host;
    sp_device *device;
    sp_attention problem; /* the case's, with tensors and arrays of the device */
    sp_tensor *tensors[ATTENTION_CASE_TENSORS];
    void *blocks[ATTENTION_CASE_TENSORS];
    int64_t block_bytes[ATTENTION_CASE_TENSORS];
    int64_t n_written_outside; /* numbers beside the tensors that a pass changed */
} cuda_case;

static inline void cuda_expect(sp_status status) {
    if (status == SP_OK) return;
    fprintf(stderr, "%s: %s\n", sp_status_name(status), sp_last_message());
    abort();
}

/* A plain causal problem with grouped heads. */
static inline attention_shape cuda_shape(int64_t T, int64_t D, sp_dtype dtype) {
    return (attention_shape){.B = 2,
                             .T = T,
                             .S = T,
                             .H = 4,
                             .Hkv = 2,
                             .D = D,
                             .Dv = D,
                             .dtype = dtype,
                             .causal = true,
                             .lambda = 1,
                             .eps = SP_EPS_DEFAULT,
                             .spread = 1,
                             .seed = (uint64_t)(T * 1000 + D)};
}

/* The first GPU, opened; NULL where there is none. */
static inline sp_device *cuda_open_first(void) {
    sp_device *device = NULL;
    if (sp_cuda_device_count() > 0) cuda_expect(sp_device_open(&device, 1));
    return device;
}

/* Memory of the device with the bytes of `host`; NULL for NULL. */
static inline void *cuda_upload(sp_device *device, const void *host, int64_t bytes) {
    void *memory = NULL;
    if (!host) return NULL;
    cuda_expect(sp_device_allocate(device, &memory, bytes, "a test's array"));
    cuda_expect(sp_device_upload(device, memory, host, bytes));
    return memory;
}

/* Memory of the device in which all bits are set: NaN in every float type. */
static inline void *cuda_poisoned(sp_device *device, int64_t bytes) {
    void *host = case_allocate_plain(bytes), *memory = cuda_upload(device, host, bytes);
    free(host);
    return memory;
}

/* Shape, order of dimensions and numbers of `host`, but every row at a multiple of 8 numbers, with gaps of 8 between
 * tokens (or heads) and sequences.  data is NULL. */
static inline sp_tensor cuda_layout(const sp_tensor *host, int32_t device, int64_t *count) {
    sp_tensor tensor = *host;
    const int64_t *shape = host->shape;
    bool head_major = host->stride[1] < host->stride[2];
    int64_t row = sp_round_up(shape[3], 8), outer = row * (head_major ? shape[1] : shape[2]) + 8;
    tensor.data = NULL;
    tensor.device = device;
    tensor.stride[1] = head_major ? row : outer;
    tensor.stride[2] = head_major ? outer : row;
    tensor.stride[0] = outer * (head_major ? shape[2] : shape[1]) + 8;
    *count = shape[0] * tensor.stride[0] + 8;
    return tensor;
}

/* Copies the numbers of one host tensor into another of the same shape. */
static inline void cuda_copy_numbers(const sp_tensor *to, const sp_tensor *from) {
    size_t bytes = (size_t)(from->shape[3] * sp_dtype_bytes(from->dtype));
    for (int64_t b = 0; b < from->shape[0]; b++)
        for (int64_t t = 0; t < from->shape[1]; t++)
            for (int64_t h = 0; h < from->shape[2]; h++)
                memcpy(sp_problem_row(to, b, t, h), sp_problem_row(from, b, t, h), bytes);
}

/* Puts tensor i on the device.  Outputs are NaN in the case already. */
static inline void cuda_upload_tensor(cuda_case *c, int i) {
    int64_t count;
    sp_tensor *tensor = c->tensors[i];
    *tensor = cuda_layout(c->host->tensors[i], c->device->id, &count);
    c->block_bytes[i] = count * sp_dtype_bytes(tensor->dtype);
    sp_tensor packed = *tensor;
    packed.data = case_allocate_plain(c->block_bytes[i]);
    cuda_copy_numbers(&packed, c->host->tensors[i]);
    tensor->data = c->blocks[i] = cuda_upload(c->device, packed.data, c->block_bytes[i]);
    free(packed.data);
}

static inline int64_t cuda_count_changed(const char *block, int64_t bytes) {
    int64_t changed = 0;
    for (int64_t i = 0; i < bytes; i++) changed += (unsigned char)block[i] != 0xff;
    return changed;
}

/* Copies tensor i back into the case, and counts what was written beside it. */
static inline void cuda_download_tensor(cuda_case *c, int i) {
    sp_tensor packed = *c->tensors[i];
    size_t row_bytes = (size_t)(packed.shape[3] * sp_dtype_bytes(packed.dtype));
    packed.data = case_allocate_plain(c->block_bytes[i]);
    cuda_expect(sp_device_download(c->device, packed.data, c->blocks[i], c->block_bytes[i]));
    cuda_copy_numbers(c->host->tensors[i], &packed);
    for (int64_t b = 0; b < packed.shape[0]; b++)
        for (int64_t t = 0; t < packed.shape[1]; t++)
            for (int64_t h = 0; h < packed.shape[2]; h++) memset(sp_problem_row(&packed, b, t, h), 0xff, row_bytes);
    c->n_written_outside += cuda_count_changed(packed.data, c->block_bytes[i]);
    free(packed.data);
}

/* One array beside the tensors: where the case has it, where the device's problem points, and its bytes. */
typedef struct cuda_array {
    const void *host;
    void **device;
    int64_t bytes;
    bool output;
} cuda_array;

enum { CUDA_ARRAYS = 11 };

static inline void cuda_arrays(cuda_case *c, cuda_array arrays[CUDA_ARRAYS]) {
    sp_attention *d = &c->problem;
    const sp_attention *h = &c->host->problem;
    int64_t rows = c->host->n_lse, heads = h->q.shape[2];
    const cuda_array all[CUDA_ARRAYS] = {
        {h->sink, (void **)(uintptr_t)&d->sink, 4 * heads, false},
        {h->row_factor, (void **)(uintptr_t)&d->row_factor, 4 * heads, false},
        {h->lse, (void **)&d->lse, 4 * rows, true},
        {h->dsink, (void **)&d->dsink, 4 * heads, true},
        {h->drow_factor, (void **)&d->drow_factor, 4 * heads, true},
        {h->statistics.mass, (void **)&d->statistics.mass, 4 * rows, true},
        {h->statistics.first_mass, (void **)&d->statistics.first_mass, 4 * rows, true},
        {h->statistics.entropy, (void **)&d->statistics.entropy, 4 * rows, true},
        {h->statistics.highest, (void **)&d->statistics.highest, 4 * rows, true},
        {h->statistics.zeros, (void **)&d->statistics.zeros, 8 * rows, true},
        {h->liveness, (void **)&d->liveness, 4 * c->host->n_liveness, true},
    };
    memcpy(arrays, all, sizeof all);
}

/* `host` has been opened by case_open, and stays. */
static inline void cuda_case_open(cuda_case *c, attention_case *host, sp_device *device) {
    *c = (cuda_case){.host = host, .device = device, .problem = host->problem};
    sp_attention *p = &c->problem;
    sp_tensor *tensors[ATTENTION_CASE_TENSORS] = {&p->q, &p->k, &p->v, &p->out, &p->dout, &p->dq, &p->dk, &p->dv};
    memcpy(c->tensors, tensors, sizeof tensors);
    for (int i = 0; i < ATTENTION_CASE_TENSORS; i++) cuda_upload_tensor(c, i);
    cuda_array arrays[CUDA_ARRAYS];
    cuda_arrays(c, arrays);
    for (int i = 0; i < CUDA_ARRAYS; i++) *arrays[i].device = cuda_upload(device, arrays[i].host, arrays[i].bytes);
    p->stream = device->stream;
}

/* Copies all outputs back into the case. */
static inline void cuda_case_download(cuda_case *c) {
    static const int outputs[] = {3, 5, 6, 7}; /* out dq dk dv */
    for (int i = 0; i < 4; i++) cuda_download_tensor(c, outputs[i]);
    cuda_array arrays[CUDA_ARRAYS];
    cuda_arrays(c, arrays);
    for (int i = 0; i < CUDA_ARRAYS; i++)
        if (arrays[i].output && arrays[i].host)
            cuda_expect(
                sp_device_download(c->device, (void *)(uintptr_t)arrays[i].host, *arrays[i].device, arrays[i].bytes));
}

/* Queues a pass with a workspace full of NaN of exactly the size asked for, waits for it, and copies the outputs back. */
static inline sp_status cuda_case_run(cuda_case *c, sp_attention_pass pass) {
    static sp_status (*const passes[])(const sp_attention *, void *, int64_t, int) = {
        [SP_ATTENTION_FORWARD] = sp_attention_forward,
        [SP_ATTENTION_BACKWARD] = sp_attention_backward,
        [SP_ATTENTION_DECODE] = sp_attention_decode,
    };
    int64_t bytes = 0;
    sp_status status = sp_attention_workspace(&c->problem, pass, 0, &bytes);
    if (status != SP_OK) return status;
    void *workspace = cuda_poisoned(c->device, bytes);
    status = passes[pass](&c->problem, workspace, bytes, 0);
    if (status == SP_OK) status = sp_device_wait(c->device);
    sp_device_release(c->device, workspace);
    if (status == SP_OK) cuda_case_download(c);
    return status;
}

static inline void cuda_case_close(cuda_case *c) {
    cuda_array arrays[CUDA_ARRAYS];
    cuda_arrays(c, arrays);
    for (int i = 0; i < ATTENTION_CASE_TENSORS; i++) sp_device_release(c->device, c->blocks[i]);
    for (int i = 0; i < CUDA_ARRAYS; i++) sp_device_release(c->device, *arrays[i].device);
}

/* ||result - truth|| / ||truth|| over the numbers of a tensor, but for what rounds to multiples of 2^-24 in f16; infinite if
 * one is NaN where the other is not. */
static inline double cuda_tensor_error(const sp_tensor *truth, const sp_tensor *result) {
    double *a = case_numbers(truth), *b = case_numbers(result), error = 0, size = 0;
    double unit = truth->dtype == SP_DTYPE_F16 ? 0x1p-24 : 0;
    for (int64_t i = 0; i < sp_tensor_count(truth); i++) {
        bool same = a[i] == b[i] || (isnan(a[i]) && isnan(b[i]));
        double e = same ? 0 : fabs(a[i] - b[i]);
        error += isnan(e) ? INFINITY : e <= unit ? 0 : e * e;
        size += isfinite(a[i]) ? a[i] * a[i] : 0;
    }
    free(a), free(b);
    return error == 0 ? 0 : sqrt(error / size);
}

/* Largest |result - truth| of n floats. */
static inline double cuda_floats_error(const float *truth, const float *result, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        bool same = truth[i] == result[i] || (isnan(truth[i]) && isnan(result[i]));
        double e = same ? 0 : fabs((double)truth[i] - (double)result[i]);
        worst = isnan(e) ? INFINITY : fmax(worst, e);
    }
    return worst;
}

#endif
