/* Sums over attention rows.  sp_attention_rows hands out the rows of one (b,h) in order from one thread: each (b,h)
 * has a walk of its own that adds up the sequence it is in, and closes it where the next begins.  The walks are
 * joined in order of b afterwards, so the result does not depend on the threads. */
#include "measure/attention_sums.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/memory.h"
#include "layers/layers.h"

const double sp_sink_thresholds[SP_SINK_THRESHOLDS] = {0.3, 0.2};

/* Where the rows of one (b,h) have come to. */
typedef struct head_walk {
    sp_head_sums sums;
    int64_t sequence;               /* the one being added up */
    int64_t n_rows, n_live;         /* of that sequence: rows; rows that are not silent */
    double first_mass, first_share; /* of that sequence: sums over its rows */
} head_walk;

typedef struct row_pass {
    const sp_attention *problem;
    int64_t H;
    int64_t sink_length_min;
    head_walk *walks; /* (B,H) */
} row_pass;

static int64_t first_key(const sp_attention *problem, int64_t sequence) {
    const int64_t *cu = problem->cu_k ? problem->cu_k : problem->cu_q;
    return cu ? cu[sequence] : 0;
}

static void close_sequence(head_walk *walk, int64_t length_min) {
    if (walk->n_rows >= length_min && walk->n_rows > 0) {
        double mass = walk->first_mass / (double)walk->n_rows;
        double share = walk->n_live ? walk->first_share / (double)walk->n_live : 0;
        walk->sums.n_sequences++;
        walk->sums.first_mass += mass;
        walk->sums.first_share += share;
        for (int i = 0; i < SP_SINK_THRESHOLDS; i++) {
            walk->sums.n_sinks[i] += mass > sp_sink_thresholds[i];
            walk->sums.n_sinks_share[i] += share > sp_sink_thresholds[i];
        }
    }
    walk->n_rows = walk->n_live = 0;
    walk->first_mass = walk->first_share = 0;
}

/* Mass and counts of one row; returns its mass. */
static double add_weights(sp_head_sums *sums, const float *weights, int64_t first, int64_t end) {
    double mass = 0;
    int64_t n_zero = 0, n_small = 0;
    for (int64_t j = first; j < end; j++) {
        mass += weights[j];
        n_zero += weights[j] == 0;
        n_small += weights[j] <= SP_SMALL_WEIGHT;
    }
    sums->n_queries++;
    sums->n_silent += mass == 0;
    sums->n_pairs += end - first;
    sums->n_zero += n_zero;
    sums->n_small += n_small;
    sums->mass += mass;
    return mass;
}

static void add_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                    int64_t first, int64_t end) {
    (void)scores;
    const row_pass *pass = user;
    head_walk *walk = &pass->walks[b * pass->H + h];
    const int64_t *cu_q = pass->problem->cu_q;
    for (; cu_q && t >= cu_q[walk->sequence + 1]; walk->sequence++) close_sequence(walk, pass->sink_length_min);

    double mass = add_weights(&walk->sums, weights, first, end);
    int64_t key = first_key(pass->problem, walk->sequence);
    double on_first = key < end ? weights[key] : 0;
    walk->n_rows++;
    walk->first_mass += on_first;
    if (mass != 0) {
        walk->n_live++;
        walk->first_share += on_first / mass;
    }
}

/* Queries of (b,h) whose output is near zero in every channel. */
static int64_t count_near_zero(const sp_attention *problem, int64_t b, int64_t h) {
    const sp_tensor *out = &problem->out;
    int64_t T = out->shape[1], D = out->shape[3], count = 0;
    for (int64_t t = 0; t < T; t++) {
        int64_t row = b * out->stride[0] + t * out->stride[1] + h * out->stride[2];
        const char *data = (const char *)out->data + row * sp_dtype_bytes(out->dtype);
        bool near_zero = true;
        for (int64_t d = 0; d < D && near_zero; d++) {
            float x;
            sp_convert(&x, SP_DTYPE_F32, data + d * sp_dtype_bytes(out->dtype), out->dtype, 1);
            near_zero = fabsf(x) < SP_NEAR_ZERO;
        }
        count += near_zero;
    }
    return count;
}

static void add_outputs(const row_pass *pass, int64_t B) {
    if (!pass->problem->out.data) return;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < B * pass->H; i++)
        pass->walks[i].sums.n_near_zero += count_near_zero(pass->problem, i / pass->H, i % pass->H);
}

static void merge_heads(sp_head_sums *sum, const sp_head_sums *more) {
    sum->n_queries += more->n_queries;
    sum->n_silent += more->n_silent;
    sum->n_near_zero += more->n_near_zero;
    sum->n_pairs += more->n_pairs;
    sum->n_zero += more->n_zero;
    sum->n_small += more->n_small;
    sum->mass += more->mass;
    sum->n_sequences += more->n_sequences;
    sum->first_mass += more->first_mass;
    sum->first_share += more->first_share;
    for (int i = 0; i < SP_SINK_THRESHOLDS; i++) {
        sum->n_sinks[i] += more->n_sinks[i];
        sum->n_sinks_share[i] += more->n_sinks_share[i];
    }
}

sp_status sp_head_sums_add(sp_head_sums *heads, const sp_attention *problem, int64_t sink_length_min) {
    int64_t B = problem->q.shape[0], H = problem->q.shape[2];
    row_pass pass = {.problem = problem, .H = H, .sink_length_min = sink_length_min};
    SP_TRY(sp_allocate((void **)&pass.walks, B * H * (int64_t)sizeof(head_walk), "attention sums"));
    sp_status status = sp_attention_rows(problem, add_row, &pass);
    if (status == SP_OK) {
        add_outputs(&pass, B);
        for (int64_t i = 0; i < B * H; i++) {
            close_sequence(&pass.walks[i], sink_length_min);
            merge_heads(&heads[i % H], &pass.walks[i].sums);
        }
    }
    free(pass.walks);
    return status;
}
