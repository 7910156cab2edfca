/* Sums over attention rows.  sp_attention_rows hands out the rows of one sequence and head in order from one thread;
 * each sequence and head has sums of its own, which are joined in order of the sequences afterwards: the result does
 * not depend on the threads. */
#include "measure/attention_sums.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/memory.h"
#include "layers/layers.h"

const double sp_sink_thresholds[SP_SINK_THRESHOLDS] = {0.3, 0.2};

/* One head of one sequence. */
typedef struct head_walk {
    sp_head_sums sums;
    int64_t n_live;                 /* rows that are not silent */
    double first_mass, first_share; /* sums over the rows */
} head_walk;

typedef struct row_pass {
    int64_t H;
    head_walk *walks; /* (n_sequences,H) */
} row_pass;

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
    (void)t, (void)scores;
    const row_pass *pass = user;
    head_walk *walk = &pass->walks[b * pass->H + h];
    double mass = add_weights(&walk->sums, weights, first, end), on_first = end > 0 ? weights[0] : 0;
    walk->first_mass += on_first;
    if (mass != 0) {
        walk->n_live++;
        walk->first_share += on_first / mass;
    }
}

/* What the whole sequence says of its first token. */
static void close_sequence(head_walk *walk) {
    sp_head_sums *sums = &walk->sums;
    sums->n_sequences = 1;
    sums->first_mass = walk->first_mass / (double)sums->n_queries;
    sums->first_share = walk->n_live ? walk->first_share / (double)walk->n_live : 0;
    for (int i = 0; i < SP_SINK_THRESHOLDS; i++) {
        sums->n_sinks[i] = sums->first_mass > sp_sink_thresholds[i];
        sums->n_sinks_share[i] = sums->first_share > sp_sink_thresholds[i];
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

static void add_outputs(sp_head_sums *heads, const sp_attention *problem) {
    if (!problem->out.data) return;
    int64_t B = problem->out.shape[0], H = problem->out.shape[2];
#pragma omp parallel for schedule(static)
    for (int64_t h = 0; h < H; h++)
        for (int64_t b = 0; b < B; b++) heads[h].n_near_zero += count_near_zero(problem, b, h);
}

static void merge_heads(sp_head_sums *sum, const sp_head_sums *more) {
    sum->n_queries += more->n_queries;
    sum->n_silent += more->n_silent;
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
    int64_t n_sequences = problem->cu_q ? problem->n_sequences : problem->q.shape[0], H = problem->q.shape[2];
    row_pass pass = {.H = H};
    SP_TRY(sp_allocate((void **)&pass.walks, n_sequences * H * (int64_t)sizeof(head_walk), "attention sums"));
    sp_status status = sp_attention_rows(problem, add_row, &pass);
    if (status == SP_OK) {
        for (int64_t i = 0; i < n_sequences * H; i++) {
            head_walk *walk = &pass.walks[i];
            int64_t length = walk->sums.n_queries;
            if (length > 0 && length >= sink_length_min) close_sequence(walk);
            merge_heads(&heads[i % H], &walk->sums);
        }
        add_outputs(heads, problem);
    }
    free(pass.walks);
    return status;
}
