/* Whether the variants of the table agree with the definition on a case: error at most twice that of plain loops in the
 * same precision (near.h), statistics and liveness included.
 *
 * Near a score of 0 the derivative jumps, weights begin and bits turn: a score that is 0 but for its rounding error
 * may fall on either side.  And where a row's denominator is small, that error is large beside it.  Both are looked for
 * only where something does not agree. */
#ifndef SP_TESTS_ATTENTION_AGREE_H
#define SP_TESTS_ATTENTION_AGREE_H

#include "attention/select.h"
#include "attention_case.h"
#include "attention_plain.h"
#include "near.h"
#include "softpick/device.h"

/* The doubtful scores of a case, and what the rounding error of scores may do. */
typedef struct agree_doubts {
    bool known;
    int64_t *zeros;                     /* (B,H,T) how many of a row's */
    uint32_t *bits;                     /* liveness words: blocks that hold one, or weights that underflow in float */
    double lse, out, query, key, value; /* what they and rounding may add to an element of lse, out, dq, dk, dv */
} agree_doubts;

/* Changes the inputs of a copy of the case. */
typedef void (*agree_prepare)(attention_case *c, const void *user);

typedef struct agree_case {
    attention_shape shape;
    sp_attention_pass pass; /* forward stands for forward and backward */
    agree_prepare prepare;  /* may be NULL */
    const void *user;
    /* may be NULL: called before gradients are compared, changes those that need not agree */
    void (*forgive)(const attention_case *truth, const attention_case *ours);
    attention_case truth, plain, rounded;
    agree_doubts doubts;
    double lenience; /* 0 or how often the allowed error may be exceeded */
    char text[320];
} agree_case;

/* How often each row of the table ran, or refused. */
enum { AGREE_ROWS = 16 };
static int agree_ran[AGREE_ROWS][SP_ATTENTION_PASS_COUNT], agree_refused[AGREE_ROWS][SP_ATTENTION_PASS_COUNT];

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static inline void agree_open_copy(const agree_case *a, attention_case *c) {
    case_open(c, &a->shape);
    if (a->prepare) a->prepare(c, a->user);
}

static inline void agree_plain(attention_case *c, sp_attention_pass pass, bool round) {
    plain_forward(&c->problem, round);
    if (pass == SP_ATTENTION_FORWARD) plain_backward(&c->problem, round);
}

/* `a` holds shape, pass, and what to do with copies. */
static inline sp_status agree_open(agree_case *a) {
    case_describe(&a->shape, a->text, sizeof a->text);
    agree_open_copy(a, &a->truth), agree_open_copy(a, &a->plain), agree_open_copy(a, &a->rounded);
    if (a->pass == SP_ATTENTION_DECODE)
        SP_TRY(sp_attention_define_decode(&a->truth.problem));
    else {
        SP_TRY(sp_attention_define_forward(&a->truth.problem));
        SP_TRY(sp_attention_define_backward(&a->truth.problem));
    }
    agree_plain(&a->plain, a->pass, false);
    if (a->shape.dtype == SP_DTYPE_BF16) agree_plain(&a->rounded, a->pass, true);
    return SP_OK;
}

static inline void agree_close(agree_case *a) {
    case_close(&a->truth), case_close(&a->plain), case_close(&a->rounded);
    free(a->doubts.zeros), free(a->doubts.bits);
}

/* ---- doubts ----------------------------------------------------------------------------------------------------- */

/* One unit in the last place, relative to the number. */
static inline double agree_ulp(sp_dtype dtype) {
    return dtype == SP_DTYPE_BF16 ? 0x1p-7 : dtype == SP_DTYPE_F16 ? 0x1p-10 : 0x1p-22;
}

static inline double agree_size(const double *row, int64_t n) {
    double size = 0;
    for (int64_t i = 0; i < n; i++) size = fmax(size, fabs(row[i]));
    return size;
}

/* Rows of a head as double; paged keys too. */
static inline void agree_row(double *row, const sp_tensor *tensor, const sp_sequence *sequence, bool key, int64_t t,
                             int64_t h) {
    int64_t b = sequence->b, at = (key ? sequence->k_first : sequence->q_first) + t;
    if (key && sequence->pages) b = sequence->pages[t / tensor->shape[1]], at = t % tensor->shape[1];
    for (int64_t d = 0; d < tensor->shape[3]; d++) row[d] = case_load(tensor, b, at, h, d);
}

/* One row, and what rounding may do to it. */
typedef struct agree_rows {
    double *q, *k, *v, *out, *dout;
    double delta;            /* error of delta = dout . out by the rounding of out */
    double lse, move, query; /* of lse, of out, of dq */
    double *key, *value;     /* (S) of the rows of dk and dv, summed over the queries */
} agree_rows;

static inline double agree_norm(const double *row, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += row[i] * row[i];
    return sqrt(squares);
}

/* Blocks whose bit may be either. */
static inline void agree_doubt_block(agree_case *a, int64_t i, int64_t h, int64_t t, int64_t j) {
    sp_liveness_shape shape = sp_problem_liveness_shape(&a->truth.problem);
    int64_t bit = t % SP_LIVENESS_QUERIES / SP_LIVENESS_BLOCK * 8 + j % SP_LIVENESS_KEYS / SP_LIVENESS_BLOCK;
    int64_t head = i * a->truth.problem.q.shape[2] + h, tile = t / SP_LIVENESS_QUERIES;
    a->doubts.bits[(head * shape.n_query_tiles + tile) * shape.n_key_tiles + j / SP_LIVENESS_KEYS] |= 1u << bit;
}

/* Key j of the row that `rows` holds. */
static inline void agree_doubt(agree_case *a, const sp_sequence *sequence, int64_t i, int64_t h, int64_t t, int64_t j,
                               agree_rows *rows) {
    const sp_attention *p = &a->truth.problem;
    int64_t D = p->q.shape[3], Dv = p->v.shape[3], index = sp_problem_lse_index(p, sequence, h, t);
    double scale = sp_problem_row_scale(p, sequence, h, t), s = 0, size = 0, g = 0, delta = 0;
    agree_row(rows->k, &p->k, sequence, true, j, sp_problem_key_head(p, h));
    agree_row(rows->v, &p->v, sequence, true, j, sp_problem_key_head(p, h));
    for (int64_t d = 0; d < D; d++) s += rows->q[d] * rows->k[d], size += fabs(rows->q[d] * rows->k[d]);
    for (int64_t d = 0; d < Dv; d++) g += rows->dout[d] * rows->v[d], delta += rows->dout[d] * rows->out[d];
    double power = exp(scale * s - 0.6931471805599453 * (double)p->lse[index]); /* e^s / D */
    double lse = isfinite(p->lse[index]) ? (double)p->lse[index] : 0;
    double least = fmax(0x1p-19 * size * fabs(scale), 0x1p-22 * (1 + fabs(lse))); /* of s, and of s - lse */
    bool doubtful = plain_rectifies(p) && fabs(scale * s) <= least;
    double moved = 0x1p-22 * (1 + fabs(scale) * size) * power; /* of e^s / D, by its rounding and that of s */
    double gradient = power * (rows->delta + 0x1p-21 * agree_norm(rows->dout, Dv) * agree_norm(rows->v, Dv)) +
                      moved * (fabs(g) + (1 + (double)p->lambda) * fabs(delta));
    if (doubtful) gradient += power * (fabs(g - delta) + (double)p->lambda * fabs(delta));
    if (doubtful && p->normalizer == SP_NORMALIZER_RECTIFIED) moved += power; /* there, or not there at all */
    if (!isfinite(gradient)) gradient = INFINITY;
    rows->lse += moved * 1.4426950408889634;
    rows->move += moved * (agree_size(rows->v, Dv) + agree_size(rows->out, Dv));
    rows->query += gradient * fabs(scale) * agree_size(rows->k, D);
    rows->key[j] += gradient * fabs(scale) * agree_size(rows->q, D);
    rows->value[j] += 2 * moved * agree_size(rows->dout, Dv);
    bool tiny = s > 0 && scale * s < 0.6931 * ((double)p->lse[index] - 120);
    if (p->liveness && (doubtful || tiny)) agree_doubt_block(a, i, h, t, j);
    a->doubts.zeros[index] += doubtful;
}

static inline void agree_doubt_row(agree_case *a, const sp_sequence *sequence, int64_t i, int64_t h, int64_t t,
                                   agree_rows *rows) {
    const sp_attention *p = &a->truth.problem;
    sp_key_range keys = sp_problem_visible(p, sequence, t);
    double squares = 0;
    agree_row(rows->q, &p->q, sequence, false, t, h);
    agree_row(rows->out, &p->out, sequence, false, t, h);
    agree_row(rows->dout, &p->dout, sequence, false, t, h);
    for (int64_t d = 0; d < p->v.shape[3]; d++) squares += pow(rows->out[d] * rows->dout[d], 2);
    rows->delta = 2 * agree_ulp(a->shape.dtype) * sqrt(squares);
    rows->lse = rows->move = rows->query = 0;
    for (int64_t j = keys.first; j < keys.end; j++) agree_doubt(a, sequence, i, h, t, j, rows);
    a->doubts.lse = fmax(a->doubts.lse, rows->lse);
    a->doubts.out = fmax(a->doubts.out, rows->move);
    a->doubts.query = fmax(a->doubts.query, rows->query);
}

static inline const agree_doubts *agree_find_doubts(agree_case *a) {
    const sp_attention *p = &a->truth.problem;
    if (a->doubts.known) return &a->doubts;
    int64_t D = p->q.shape[3], Dv = p->v.shape[3], S = a->shape.S, group = p->q.shape[2] / p->k.shape[2];
    a->doubts.known = true;
    a->doubts.zeros = calloc((size_t)a->truth.n_lse + 1, sizeof *a->doubts.zeros);
    a->doubts.bits = calloc((size_t)a->truth.n_liveness + 1, sizeof *a->doubts.bits);
    double *memory = calloc((size_t)(2 * D + 3 * Dv + 2 * S), sizeof *memory), *v = memory + 2 * D, *key = v + 3 * Dv;
    if (!a->doubts.zeros || !a->doubts.bits || !memory) abort();
    agree_rows rows = {memory, memory + D, v, v + Dv, v + 2 * Dv, .key = key, .value = key + S};
    for (int64_t i = 0; i < sp_problem_n_sequences(p); i++) {
        sp_sequence sequence = sp_problem_sequence(p, i);
        for (int64_t h = 0; h < p->q.shape[2]; h++) {
            if (h % group == 0) memset(key, 0, 2 * (size_t)S * sizeof *key);
            for (int64_t t = 0; t < sequence.n_q; t++) agree_doubt_row(a, &sequence, i, h, t, &rows);
            a->doubts.key = fmax(a->doubts.key, agree_size(rows.key, S));
            a->doubts.value = fmax(a->doubts.value, agree_size(rows.value, S));
        }
    }
    free(memory);
    return &a->doubts;
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

/* The error of the plain loops; where they round to bf16, at least half a unit in the last place: all weights of an
 * array may happen to be rounded alike, or hardly at all. */
static inline near_error agree_plain_error(const agree_case *a, const attention_case *plain, const double *truth,
                                           const double *result, int64_t n) {
    near_error error = near_measure(truth, result, n);
    double norm = 0;
    if (plain != &a->rounded) return error;
    for (int64_t i = 0; i < n; i++) norm += isfinite(truth[i]) ? truth[i] * truth[i] : 0;
    error.worst = fmax(error.worst, 0x1p-9 * near_largest(truth, n));
    error.norm = fmax(error.norm, 0x1p-9 * sqrt(norm));
    return error;
}

/* One tensor.  `size`: of the terms that may cancel in its elements. */
static inline bool agree_tensor(agree_case *a, const char *variant, int i, const attention_case *ours,
                                const attention_case *plain, double size) {
    static const char *const names[] = {"q", "k", "v", "out", "dout", "dq", "dk", "dv"};
    char label[400];
    snprintf(label, sizeof label, "%s [%s]: %s", a->text, variant, names[i]);
    int64_t n = sp_tensor_count(ours->tensors[i]);
    double *x = case_numbers(a->truth.tensors[i]), *y = case_numbers(ours->tensors[i]);
    double *z = case_numbers(plain->tensors[i]);
    double slack = agree_ulp(a->shape.dtype) * near_largest(x, n) + agree_ulp(SP_DTYPE_F32) * size;
    slack *= 1 + a->lenience;
    near_error our_error = near_measure(x, y, n), plain_error = agree_plain_error(a, plain, x, z, n);
    bool near = near_within(our_error, plain_error, n, slack);
    if (!near) {
        const agree_doubts *doubts = agree_find_doubts(a);
        slack += 4 * (i == 3 ? doubts->out : i == 5 ? doubts->query : i == 6 ? doubts->key : doubts->value);
        near = near_within(our_error, plain_error, n, slack);
        if (!near) near_tell(label, x, y, our_error, plain_error, slack);
    }
    free(x), free(y), free(z);
    return near;
}

static inline bool agree_floats(agree_case *a, const char *variant, const char *name, const float *truth,
                                const float *ours, const float *plain, int64_t n, double slack) {
    char label[400];
    snprintf(label, sizeof label, "%s [%s]: %s", a->text, variant, name);
    double *x = case_allocate_plain((n + 1) * 8), *y = case_allocate_plain((n + 1) * 8);
    double *z = case_allocate_plain((n + 1) * 8);
    for (int64_t i = 0; i < n; i++) x[i] = (double)truth[i], y[i] = (double)ours[i], z[i] = (double)plain[i];
    slack *= fmax(1, near_largest(x, n)) * (1 + a->lenience);
    bool near = near_within(near_measure(x, y, n), near_measure(x, z, n), n, slack);
    if (!near) near = near_check(label, x, y, z, n, slack + agree_find_doubts(a)->lse);
    free(x), free(y), free(z);
    return near;
}

static inline bool agree_zeros(agree_case *a, const char *variant, const attention_case *ours) {
    const int64_t *wanted = a->truth.statistics.zeros, *found = ours->statistics.zeros;
    for (int64_t i = 0; i < a->truth.n_lse; i++) {
        int64_t off = wanted[i] > found[i] ? wanted[i] - found[i] : found[i] - wanted[i];
        if (off == 0 || off <= agree_find_doubts(a)->zeros[i]) continue;
        fprintf(stderr, "%s [%s]: zeros[%lld] is %lld, not %lld\n", a->text, variant, (long long)i, (long long)found[i],
                (long long)wanted[i]);
        return false;
    }
    return true;
}

static inline bool agree_liveness(agree_case *a, const char *variant, const attention_case *ours) {
    for (int64_t i = 0; i < a->truth.n_liveness; i++) {
        uint32_t off = a->truth.liveness[i] ^ ours->liveness[i];
        if (off == 0 || !(off & ~agree_find_doubts(a)->bits[i])) continue;
        fprintf(stderr, "%s [%s]: liveness[%lld] is %08x, not %08x\n", a->text, variant, (long long)i,
                (unsigned)ours->liveness[i], (unsigned)a->truth.liveness[i]);
        return false;
    }
    return true;
}

static inline bool agree_statistics(agree_case *a, const char *variant, const attention_case *ours,
                                    const attention_case *plain) {
    const sp_attention_statistics *x = &a->truth.statistics, *y = &ours->statistics, *z = &plain->statistics;
    int64_t n = a->truth.n_lse;
    bool near = agree_floats(a, variant, "mass", x->mass, y->mass, z->mass, n, 2e-6);
    near = agree_floats(a, variant, "first mass", x->first_mass, y->first_mass, z->first_mass, n, 2e-6) && near;
    near = agree_floats(a, variant, "entropy", x->entropy, y->entropy, z->entropy, n, 1e-5) && near;
    near = agree_floats(a, variant, "highest", x->highest, y->highest, z->highest, n, 0x1p-22) && near;
    return agree_zeros(a, variant, ours) && near;
}

/* True for a row that rounds weights and score gradients to bf16. */
static inline bool agree_rounds(const agree_case *a, const char *variant) {
    bool pairs = strcmp(variant, "amx") == 0 || strcmp(variant, "avx512_bf16") == 0;
    return pairs && a->shape.dtype == SP_DTYPE_BF16 && a->pass != SP_ATTENTION_DECODE;
}

/* Rows that round to bf16 take powers to about 2e-4 of a score near 0: a tenth of that rounding. */
static inline bool agree_forward(agree_case *a, const char *variant, const attention_case *ours) {
    bool rounds = agree_rounds(a, variant);
    const attention_case *plain = rounds ? &a->rounded : &a->plain;
    bool near =
        agree_floats(a, variant, "lse", a->truth.lse, ours->lse, plain->lse, a->truth.n_lse, rounds ? 2e-4 : 1e-6);
    near = agree_tensor(a, variant, 3, ours, plain, 0) && near;
    if (a->shape.statistics) near = agree_statistics(a, variant, ours, plain) && near;
    if (a->shape.liveness) near = agree_liveness(a, variant, ours) && near;
    return near;
}

static inline double agree_tensor_size(const sp_tensor *tensor) {
    double *numbers = case_numbers(tensor), size = near_largest(numbers, sp_tensor_count(tensor));
    free(numbers);
    return size;
}

/* The largest scale of a row. */
static inline double agree_scale(const agree_case *a) {
    const sp_attention *p = &a->truth.problem;
    double factor = p->row_factor ? 0 : 1;
    for (int64_t h = 0; h < p->q.shape[2] && p->row_factor; h++)
        factor = fmax(factor, fabs((double)p->row_factor[h]) * log((double)a->shape.S + 2));
    return factor * sp_problem_scale(p);
}

static inline bool agree_backward(agree_case *a, const char *variant, const attention_case *ours) {
    const attention_shape *shape = &a->shape;
    const attention_case *plain = agree_rounds(a, variant) ? &a->rounded : &a->plain;
    /* terms that may cancel: g = dout . v has the size of sqrt(Dv), whatever becomes of it; dk and dv sum over queries */
    double g = 6 * sqrt((double)shape->Dv), scale = agree_scale(a);
    double terms = shape->Hkv ? sqrt((double)(shape->T * shape->H / shape->Hkv)) : 0;
    double sizes[8] = {[5] = g * scale * agree_tensor_size(&ours->problem.k),
                       [6] = g * scale * agree_tensor_size(&ours->problem.q) * fmax(1, terms / 4),
                       [7] = terms};
    double sums = g * agree_ulp(shape->dtype) * sqrt((double)(shape->B * shape->T));
    double dots = fmax(sqrt((double)shape->D) * (double)shape->spread,
                       agree_tensor_size(&ours->problem.q) * agree_tensor_size(&ours->problem.k));
    bool near = true;
    for (int i = 5; i < 8; i++) near = agree_tensor(a, variant, i, ours, plain, sizes[i]) && near;
    near = agree_floats(a, variant, "dsink", a->truth.dsink, ours->dsink, plain->dsink, shape->H, sums) && near;
    return agree_floats(a, variant, "drow_factor", a->truth.drow_factor, ours->drow_factor, plain->drow_factor,
                        shape->H, sums * dots) &&
           near;
}

/* Name of the first array in which two copies of a case have other bits, gaps included; NULL if there is none.
 * Liveness counts where both have it. */
static inline const char *agree_difference(const attention_case *a, const attention_case *b) {
    int64_t H = a->problem.q.shape[2], rows = a->n_lse;
    const sp_attention_statistics *x = &a->statistics, *y = &b->statistics;
    const struct {
        const char *name;
        const void *a, *b;
        int64_t bytes;
    } parts[] = {
        {"out", a->blocks[3], b->blocks[3], a->block_bytes[3]},
        {"lse", a->lse, b->lse, 4 * rows},
        {"mass", x->mass, y->mass, 4 * rows},
        {"first mass", x->first_mass, y->first_mass, 4 * rows},
        {"entropy", x->entropy, y->entropy, 4 * rows},
        {"highest", x->highest, y->highest, 4 * rows},
        {"zeros", x->zeros, y->zeros, 8 * rows},
        {"liveness", a->problem.liveness, b->problem.liveness, 4 * a->n_liveness},
        {"dq", a->blocks[5], b->blocks[5], a->block_bytes[5]},
        {"dk", a->blocks[6], b->blocks[6], a->block_bytes[6]},
        {"dv", a->blocks[7], b->blocks[7], a->block_bytes[7]},
        {"dsink", a->dsink, b->dsink, 4 * H},
        {"drow_factor", a->drow_factor, b->drow_factor, 4 * H},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].a && parts[i].b && memcmp(parts[i].a, parts[i].b, (size_t)parts[i].bytes)) return parts[i].name;
    return NULL;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* Index of the variant, or -1. */
static inline int agree_index(const char *variant) {
    for (int i = 0; i < sp_attention_table.n_rows; i++)
        if (strcmp(sp_variant_at(&sp_attention_table, i)->name, variant) == 0) return i;
    return -1;
}

/* Whether row i of the table computes here and in host memory; rows for a GPU have tests of their own. */
static inline bool agree_on_cpu(int i) {
    const sp_variant *row = sp_variant_at(&sp_attention_table, i);
    return !(row->needs & ~sp_cpu_features()) && !((const sp_attention_row *)row)->gpu;
}

/* Runs a pass by the variant that SP_ATTENTION names.  False if it refuses the problem. */
static inline bool agree_run(attention_case *c, const char *variant, sp_attention_pass pass, int n_threads,
                             sp_status *status) {
    const char *name;
    int row = agree_index(variant);
    *status = sp_attention_choose(&c->problem, pass, &name);
    if (*status == SP_UNSUPPORTED) {
        *status = SP_OK;
        agree_refused[row][pass]++;
        return false;
    }
    if (*status == SP_OK) *status = case_run(c, pass, n_threads);
    agree_ran[row][pass]++;
    return true;
}

/* The case's passes by one variant, in `ours`, which is opened.  SP_ATTENTION must name the variant. */
static inline bool agree_variant(agree_case *a, const char *variant, int n_threads, attention_case *ours) {
    sp_status status;
    bool near = true;
    agree_open_copy(a, ours);
    bool ran = agree_run(ours, variant, a->pass, n_threads, &status);
    if (ran && status == SP_OK) near = agree_forward(a, variant, ours);
    if (ran && status == SP_OK && a->pass == SP_ATTENTION_FORWARD &&
        agree_run(ours, variant, SP_ATTENTION_BACKWARD, n_threads, &status) && status == SP_OK) {
        if (a->forgive) a->forgive(&a->truth, ours);
        near = agree_backward(a, variant, ours) && near;
    }
    if (status != SP_OK) fprintf(stderr, "%s [%s]: %s\n", a->text, variant, sp_last_message());
    return near && status == SP_OK;
}

/* Calls `check` with each variant forced in turn; those the CPU lacks are told and passed over. */
static inline bool agree_with_each_variant(bool (*check)(const char *variant, void *user), void *user) {
    bool all = true;
    for (int i = 0; i < sp_attention_table.n_rows; i++) {
        const sp_variant *row = sp_variant_at(&sp_attention_table, i);
        if (!agree_on_cpu(i)) continue;
        setenv("SP_ATTENTION", row->name, 1);
        all = check(row->name, user) && all;
        unsetenv("SP_ATTENTION");
    }
    return all;
}

static inline bool agree_check_variant(const char *variant, void *user) {
    attention_case ours;
    bool near = agree_variant(user, variant, 1, &ours);
    case_close(&ours);
    return near;
}

/* All of it for one case, which `name` is told with when something does not agree. */
static inline bool agree_check(const char *name, agree_case a) {
    bool near = agree_open(&a) == SP_OK && agree_with_each_variant(agree_check_variant, &a);
    if (!near) fprintf(stderr, "... with %s\n", name);
    agree_close(&a);
    return near;
}

/* What ran, for a test's last line; false if a variant that the CPU can run never ran `pass`. */
static inline bool agree_tell(sp_attention_pass pass) {
    bool all = true;
    for (int i = 0; i < sp_attention_table.n_rows; i++) {
        const sp_variant *row = sp_variant_at(&sp_attention_table, i);
        bool lacking = !agree_on_cpu(i);
        printf("%s by %s: %d cases, %d refused%s\n", sp_attention_pass_name(pass), row->name, agree_ran[i][pass],
               agree_refused[i][pass], lacking ? " (not for this CPU)" : "");
        bool forward_alone = pass == SP_ATTENTION_BACKWARD && row->needs & SP_CPU_AVX512_BF16;
        all = all && (lacking || forward_alone || agree_ran[i][pass] > 0);
    }
    return all;
}

#endif
