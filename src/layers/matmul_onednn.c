/* Matrix products by oneDNN: the one file that names it.  Primitives are made once per shape, layout and
 * dtype and kept in a bounded table. */
#include "layers/matmul.h"

#if SP_WITH_ONEDNN

#include <inttypes.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>

/* Everything a primitive depends on; compared as bytes, so without padding. */
typedef struct key {
    int64_t M, N, K, a_row, a_column, b_row, b_column, c_row;
    int32_t inputs, output, accumulate, unused;
} key;

typedef struct slot {
    key key;
    dnnl_primitive_t primitive; /* NULL: empty */
    dnnl_memory_desc_t a, b, c;
    uint64_t last_use;
} slot;

enum { N_SLOTS = 256 };

static struct {
    pthread_mutex_t mutex;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t clock;
    slot slots[N_SLOTS];
} cache = {.mutex = PTHREAD_MUTEX_INITIALIZER};

#define TRY_DNNL(call)                                                                                                 \
    do {                                                                                                               \
        dnnl_status_t dnnl_status_ = (call);                                                                           \
        if (dnnl_status_ != dnnl_success)                                                                              \
            return sp_fail(dnnl_status_ == dnnl_out_of_memory ? SP_OUT_OF_MEMORY : SP_UNSUPPORTED,                     \
                           "oneDNN refused %s: %s", #call, dnnl_status2str(dnnl_status_));                             \
    } while (0)

static dnnl_data_type_t data_type(sp_dtype dtype) { return dtype == SP_DTYPE_BF16 ? dnnl_bf16 : dnnl_f32; }

static dnnl_status_t describe(dnnl_memory_desc_t *out, int64_t rows, int64_t columns, int64_t row_stride,
                              int64_t column_stride, sp_dtype dtype) {
    dnnl_dims_t dims = {rows, columns}, strides = {row_stride, column_stride};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, data_type(dtype), strides);
}

static dnnl_status_t make_with(slot *out, dnnl_primitive_attr_t attributes, dnnl_post_ops_t post_ops, bool accumulate) {
    dnnl_matmul_desc_t operation;
    dnnl_primitive_desc_t description = NULL;
    dnnl_status_t status = dnnl_matmul_desc_init(&operation, &out->a, &out->b, NULL, &out->c);
    if (!status && accumulate) status = dnnl_post_ops_append_sum(post_ops, 1.0f);
    if (!status) status = dnnl_primitive_attr_set_post_ops(attributes, post_ops);
    if (!status) status = dnnl_primitive_desc_create(&description, &operation, attributes, cache.engine, NULL);
    if (!status) status = dnnl_primitive_create(&out->primitive, description);
    if (description) dnnl_primitive_desc_destroy(description);
    return status;
}

/* Fills an empty slot. */
static sp_status make(slot *out, const sp_product *p, const key *k) {
    TRY_DNNL(describe(&out->a, p->M, p->K, k->a_row, k->a_column, p->a.dtype));
    TRY_DNNL(describe(&out->b, p->K, p->N, k->b_row, k->b_column, p->b.dtype));
    TRY_DNNL(describe(&out->c, p->M, p->N, k->c_row, 1, p->c_dtype));
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attributes);
    if (!status) status = dnnl_post_ops_create(&post_ops);
    if (!status) status = make_with(out, attributes, post_ops, p->accumulate);
    if (post_ops) dnnl_post_ops_destroy(post_ops);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    SP_REQUIRE(!status, SP_UNSUPPORTED,
               "oneDNN has no product of %s (%" PRId64 ",%" PRId64 ") by (%" PRId64 ",%" PRId64 ") to %s: %s",
               sp_dtype_name(p->a.dtype), p->M, p->K, p->K, p->N, sp_dtype_name(p->c_dtype), dnnl_status2str(status));
    out->key = *k;
    return SP_OK;
}

/* The slot of this key; a new one takes the place of the one unused for longest. */
static sp_status find(slot **out, const sp_product *p, const key *k) {
    slot *oldest = &cache.slots[0];
    for (int i = 0; i < N_SLOTS; i++) {
        slot *s = &cache.slots[i];
        if (s->primitive && memcmp(&s->key, k, sizeof *k) == 0) {
            *out = s;
            return SP_OK;
        }
        if (s->last_use < oldest->last_use) oldest = s;
    }
    if (oldest->primitive) dnnl_primitive_destroy(oldest->primitive);
    *oldest = (slot){0};
    SP_TRY(make(oldest, p, k));
    *out = oldest;
    return SP_OK;
}

static void *writable(const void *data) {
    union {
        const void *in;
        void *out;
    } pointer = {data};
    return pointer.out;
}

static sp_status execute(const slot *s, const sp_product *p) {
    dnnl_memory_t a = NULL, b = NULL, c = NULL;
    dnnl_status_t status = dnnl_memory_create(&a, &s->a, cache.engine, writable(p->a.data));
    if (!status) status = dnnl_memory_create(&b, &s->b, cache.engine, writable(p->b.data));
    if (!status) status = dnnl_memory_create(&c, &s->c, cache.engine, p->c);
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}};
    if (!status) status = dnnl_primitive_execute(s->primitive, cache.stream, 3, arguments);
    if (!status) status = dnnl_stream_wait(cache.stream);
    if (a) dnnl_memory_destroy(a);
    if (b) dnnl_memory_destroy(b);
    if (c) dnnl_memory_destroy(c);
    SP_REQUIRE(!status, SP_DEVICE_FAILED, "oneDNN's matrix product failed: %s", dnnl_status2str(status));
    return SP_OK;
}

static sp_status run_locked(const sp_product *p) {
    if (!cache.engine) TRY_DNNL(dnnl_engine_create(&cache.engine, dnnl_cpu, 0));
    if (!cache.stream) TRY_DNNL(dnnl_stream_create(&cache.stream, cache.engine, dnnl_stream_default_flags));
    key k = {p->M,
             p->N,
             p->K,
             p->a.row_stride,
             p->a.column_stride,
             p->b.row_stride,
             p->b.column_stride,
             p->c_stride,
             (int32_t)p->a.dtype,
             (int32_t)p->c_dtype,
             p->accumulate,
             0};
    slot *s;
    SP_TRY(find(&s, p, &k));
    s->last_use = ++cache.clock;
    return execute(s, p);
}

bool sp_matmul_onednn_accepts(sp_dtype inputs) { return inputs == SP_DTYPE_F32 || inputs == SP_DTYPE_BF16; }

sp_status sp_matmul_onednn_run(const sp_product *product) {
    pthread_mutex_lock(&cache.mutex);
    sp_status status = run_locked(product);
    pthread_mutex_unlock(&cache.mutex);
    return status;
}

#endif
