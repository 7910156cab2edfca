/* Sums over attention rows, which sp_attention_row_sums gives on every device; they are added in order of sequences and
 * rows, so that the result does not depend on the threads. */
#include "measure/attention_sums.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "attention/row_sums.h"
#include "base/memory.h"
#include "device/device.h"
#include "layers/layers.h"

const double sp_sink_thresholds[SP_SINK_THRESHOLDS] = {0.3, 0.2};
const float sp_near_zeros[SP_NEAR_ZEROS] = {1e-6f, 1e-2f};

/* One head of one sequence. */
typedef struct head_walk {
    sp_head_sums sums;
    int64_t n_live;                 /* rows that are not silent */
    double first_mass, first_share; /* sums over the rows */
} head_walk;

static void add_row(head_walk *walk, const sp_row_sums *rows, int64_t index, int64_t n_keys) {
    sp_head_sums *sums = &walk->sums;
    double mass = (double)rows->mass[index], first = (double)rows->first[index];
    sums->n_queries++;
    sums->n_silent += mass == 0;
    sums->n_pairs += n_keys;
    sums->n_zero += rows->zeros[index];
    sums->n_small += rows->small[index];
    sums->mass += mass;
    walk->first_mass += first;
    if (mass != 0) {
        walk->n_live++;
        walk->first_share += first / mass;
    }
}

static void merge_sinks(sp_sink_sums *sum, const sp_sink_sums *more) {
    sum->n_sequences += more->n_sequences;
    sum->first_mass += more->first_mass;
    sum->first_share += more->first_share;
    for (int i = 0; i < SP_SINK_THRESHOLDS; i++) {
        sum->n_sinks[i] += more->n_sinks[i];
        sum->n_sinks_share[i] += more->n_sinks_share[i];
    }
}

/* What the rows so far say of the sequence's first token. */
static sp_sink_sums sinks_of(const head_walk *walk) {
    sp_sink_sums sinks = {.n_sequences = 1};
    sinks.first_mass = walk->first_mass / (double)walk->sums.n_queries;
    sinks.first_share = walk->n_live ? walk->first_share / (double)walk->n_live : 0;
    for (int i = 0; i < SP_SINK_THRESHOLDS; i++) {
        sinks.n_sinks[i] = sinks.first_mass > sp_sink_thresholds[i];
        sinks.n_sinks_share[i] = sinks.first_share > sp_sink_thresholds[i];
    }
    return sinks;
}

/* Adds the queries of (b,h) whose output is near zero in every channel; `out` in host memory. */
static void count_near_zero(sp_head_sums *sums, const sp_tensor *out, int64_t b, int64_t h) {
    int64_t T = out->shape[1], D = out->shape[3];
    for (int64_t t = 0; t < T; t++) {
        int64_t row = b * out->stride[0] + t * out->stride[1] + h * out->stride[2];
        const char *data = (const char *)out->data + row * sp_dtype_bytes(out->dtype);
        bool near[SP_NEAR_ZEROS] = {true, true}; /* false for a NaN, too */
        for (int64_t d = 0; d < D && near[SP_NEAR_ZEROS - 1]; d++) {
            float x;
            sp_convert(&x, SP_DTYPE_F32, data + d * sp_dtype_bytes(out->dtype), out->dtype, 1);
            for (int i = 0; i < SP_NEAR_ZEROS; i++) near[i] = near[i] && fabsf(x) < sp_near_zeros[i];
        }
        for (int i = 0; i < SP_NEAR_ZEROS; i++) sums->n_near_zero[i] += near[i];
    }
}

/* All work on the problem's stream has been waited for. */
static sp_status add_outputs(sp_head_sums *heads, const sp_attention *problem) {
    if (!problem->out.data || sp_tensor_count(&problem->out) == 0) return SP_OK;
    sp_tensor out = problem->out;
    int64_t span = 1, H = out.shape[2];
    for (int i = 0; i < 4; i++) span += (out.shape[i] - 1) * out.stride[i];
    sp_device *device;
    const void *host;
    SP_TRY(sp_device_open(&device, out.device));
    sp_status status = sp_device_read_begin(device, &host, out.data, span * sp_dtype_bytes(out.dtype));
    if (status == SP_OK) {
        out.data = (void *)(uintptr_t)host;
#pragma omp parallel for schedule(static)
        for (int64_t h = 0; h < H; h++)
            for (int64_t b = 0; b < out.shape[0]; b++) count_near_zero(&heads[h], &out, b, h);
        sp_device_read_end(device, host);
    }
    sp_device_close(device);
    return status;
}

static void merge_heads(sp_head_sums *sum, const sp_head_sums *more) {
    sum->n_queries += more->n_queries;
    sum->n_silent += more->n_silent;
    sum->n_pairs += more->n_pairs;
    sum->n_zero += more->n_zero;
    sum->n_small += more->n_small;
    sum->mass += more->mass;
}

/* Sequence i of head h, and its beginnings of each length. */
static void add_sequence(sp_head_sums *head, const sp_sink_lengths *lengths, const sp_attention *problem,
                         const sp_row_sums *rows, int64_t i, int64_t h, int64_t sink_length_min) {
    const sp_sequence sequence = sp_problem_sequence(problem, i);
    head_walk walk = {0};
    int64_t n_lengths = lengths ? lengths->n : 0, l = 0;
    for (int64_t t = 0; t < sequence.n_q; t++) {
        sp_key_range seen = sp_problem_visible(problem, &sequence, t);
        add_row(&walk, rows, sp_problem_lse_index(problem, &sequence, h, t), seen.end - seen.first);
        if (l == n_lengths || lengths->length[l] != t + 1) continue;
        sp_sink_sums sinks = sinks_of(&walk);
        merge_sinks(&lengths->sums[h * n_lengths + l++], &sinks);
    }
    if (sequence.n_q > 0 && sequence.n_q >= sink_length_min) {
        sp_sink_sums sinks = sinks_of(&walk);
        merge_sinks(&head->sinks, &sinks);
    }
    merge_heads(head, &walk.sums);
}

sp_status sp_head_sums_add(sp_head_sums *heads, const sp_sink_lengths *lengths, const sp_attention *problem,
                           int64_t sink_length_min) {
    int64_t n_sequences = sp_problem_n_sequences(problem), H = problem->q.shape[2], used = 0;
    int64_t n = problem->q.shape[0] * H * problem->q.shape[1];
    sp_row_sums rows;
    void *block = NULL;
    for (int pass = 0; pass < 2; pass++) { /* count, then hand out */
        if (pass) SP_TRY(sp_allocate(&block, used, "attention sums"));
        used = 0;
        rows.mass = sp_carve(block, &used, n, sizeof *rows.mass);
        rows.first = sp_carve(block, &used, n, sizeof *rows.first);
        rows.zeros = sp_carve(block, &used, n, sizeof *rows.zeros);
        rows.small = sp_carve(block, &used, n, sizeof *rows.small);
    }
    sp_status status = sp_attention_row_sums(problem, SP_SMALL_WEIGHT, &rows);
    if (status == SP_OK) {
#pragma omp parallel for schedule(static)
        for (int64_t h = 0; h < H; h++)
            for (int64_t i = 0; i < n_sequences; i++)
                add_sequence(&heads[h], lengths, problem, &rows, i, h, sink_length_min);
        status = add_outputs(heads, problem);
    }
    free(block);
    return status;
}
