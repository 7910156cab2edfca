/* Matrix products by oneDNN 2.x: the one file that names it.
 *
 * A product is prepared once per shape, layout, dtype and number of threads, and kept in a table of N_SLOTS that gives
 * up the one unused for longest.  One lock is held while a product is looked up, prepared and run: it runs on OpenMP's
 * threads, so callers that come together would only wait for each other there.
 *
 * Operands go in with the strides they have.  Copying them to oneDNN's own blocked layouts first makes the bare product
 * up to 20 % faster, but the copies take as much (docs/speed-log.md). */
#include "layers/matmul.h"

#if SP_WITH_ONEDNN

#include <inttypes.h>
#include <omp.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>

/* All that a prepared product depends on.  Compared as bytes: 64-bit numbers alone, so without holes. */
typedef struct key {
    int64_t M, N, K, a_row, a_column, b_row, b_column, c_row, inputs, output, accumulate, n_threads;
} key;

typedef struct prepared {
    key key;
    dnnl_primitive_t primitive; /* NULL: an empty slot */
    dnnl_memory_t a, b, c;
    uint64_t last_use;
} prepared;

enum { N_SLOTS = 256 };

static struct {
    pthread_mutex_t lock;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t clock;
    prepared slots[N_SLOTS];
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static key key_of(const sp_product *p) {
    return (key){
        .M = p->M,
        .N = p->N,
        .K = p->K,
        .a_row = p->a.row_stride,
        .a_column = p->a.column_stride,
        .b_row = p->b.row_stride,
        .b_column = p->b.column_stride,
        .c_row = p->c_stride,
        .inputs = p->a.dtype,
        .output = p->c_dtype,
        .accumulate = p->accumulate,
        .n_threads = omp_get_max_threads(),
    };
}

static void release(prepared *slot) {
    dnnl_memory_t memories[] = {slot->a, slot->b, slot->c};
    for (int i = 0; i < 3; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    if (slot->primitive) dnnl_primitive_destroy(slot->primitive);
    *slot = (prepared){0};
}

/* A description of one operand, and the object that will carry its address. */
static dnnl_status_t operand(dnnl_memory_desc_t *description, dnnl_memory_t *memory, int64_t rows, int64_t columns,
                             int64_t row_stride, int64_t column_stride, int64_t dtype) {
    dnnl_dims_t dims = {rows, columns}, strides = {row_stride, column_stride};
    dnnl_status_t status =
        dnnl_memory_desc_init_by_strides(description, 2, dims, dtype == SP_DTYPE_BF16 ? dnnl_bf16 : dnnl_f32, strides);
    return status ? status : dnnl_memory_create(memory, description, table.engine, DNNL_MEMORY_NONE);
}

static dnnl_status_t make_primitive(prepared *slot, const key *k, dnnl_primitive_attr_t attributes) {
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t product;
    dnnl_primitive_desc_t description = NULL;
    dnnl_status_t status = operand(&a, &slot->a, k->M, k->K, k->a_row, k->a_column, k->inputs);
    if (!status) status = operand(&b, &slot->b, k->K, k->N, k->b_row, k->b_column, k->inputs);
    if (!status) status = operand(&c, &slot->c, k->M, k->N, k->c_row, 1, k->output);
    if (!status) status = dnnl_matmul_desc_init(&product, &a, &b, NULL, &c);
    if (!status) status = dnnl_primitive_desc_create(&description, &product, attributes, table.engine, NULL);
    if (!status) status = dnnl_primitive_create(&slot->primitive, description);
    if (description) dnnl_primitive_desc_destroy(description);
    return status;
}

static dnnl_status_t prepare(prepared *slot, const key *k) {
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attributes);
    if (!status) status = dnnl_post_ops_create(&post_ops);
    if (!status && k->accumulate) status = dnnl_post_ops_append_sum(post_ops, 1.0f);
    if (!status) status = dnnl_primitive_attr_set_post_ops(attributes, post_ops);
    if (!status) status = make_primitive(slot, k, attributes);
    if (post_ops) dnnl_post_ops_destroy(post_ops);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    slot->key = *k;
    return status;
}

static prepared *find(const key *k) {
    for (int i = 0; i < N_SLOTS; i++)
        if (table.slots[i].primitive && memcmp(&table.slots[i].key, k, sizeof *k) == 0) return &table.slots[i];
    return NULL;
}

static prepared *empty_slot(void) {
    prepared *oldest = &table.slots[0];
    for (int i = 1; i < N_SLOTS; i++)
        if (table.slots[i].last_use < oldest->last_use) oldest = &table.slots[i];
    release(oldest);
    return oldest;
}

static dnnl_status_t start_engine(void) {
    dnnl_status_t status = dnnl_success;
    if (!table.engine) status = dnnl_engine_create(&table.engine, dnnl_cpu, 0);
    if (!status && !table.stream) status = dnnl_stream_create(&table.stream, table.engine, dnnl_stream_default_flags);
    return status;
}

/* oneDNN takes addresses of inputs without const. */
static void *address(const void *data) {
    union {
        const void *in;
        void *out;
    } both = {data};
    return both.out;
}

static dnnl_status_t execute(prepared *slot, const sp_product *p) {
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, slot->a}, {DNNL_ARG_WEIGHTS, slot->b}, {DNNL_ARG_DST, slot->c}};
    dnnl_status_t status = dnnl_memory_set_data_handle(slot->a, address(p->a.data));
    if (!status) status = dnnl_memory_set_data_handle(slot->b, address(p->b.data));
    if (!status) status = dnnl_memory_set_data_handle(slot->c, p->c);
    if (!status) status = dnnl_primitive_execute(slot->primitive, table.stream, 3, arguments);
    return status ? status : dnnl_stream_wait(table.stream);
}

static dnnl_status_t run_locked(const sp_product *p) {
    key k = key_of(p);
    prepared *slot = find(&k);
    dnnl_status_t status = start_engine();
    if (!status && !slot) {
        slot = empty_slot();
        status = prepare(slot, &k);
        if (status) release(slot);
    }
    if (status) return status;
    slot->last_use = ++table.clock;
    return execute(slot, p);
}

sp_status sp_matmul_onednn(const sp_product *p) {
    pthread_mutex_lock(&table.lock);
    dnnl_status_t status = run_locked(p);
    pthread_mutex_unlock(&table.lock);
    SP_REQUIRE(status == dnnl_success, status == dnnl_out_of_memory ? SP_OUT_OF_MEMORY : SP_UNSUPPORTED,
               "oneDNN's product of %s (%" PRId64 ",%" PRId64 ") by (%" PRId64 ",%" PRId64 ") to %s: %s",
               sp_dtype_name(p->a.dtype), p->M, p->K, p->K, p->N, sp_dtype_name(p->c_dtype), dnnl_status2str(status));
    return SP_OK;
}

#endif
