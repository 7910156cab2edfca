/* Attention inputs whose scores are known: signs that form blocks, none of them near 0; a list of scores for all rows. */
#ifndef SP_TESTS_ATTENTION_SIGNS_H
#define SP_TESTS_ATTENTION_SIGNS_H

#include "attention/select.h"
#include "attention_case.h"
#include "softpick/device.h"

/* Signs of rows that go with q or k: those of whole blocks of 16 rows, in some blocks with rows of their own sign. */
static inline double case_row_sign(uint64_t seed, uint64_t stream, int64_t row) {
    uint64_t block = (uint64_t)row / 16;
    bool scattered = sp_random_below(seed, stream, 2 * block, 8) == 0;
    uint64_t index = scattered ? 1000000 + (uint64_t)row : 2 * block + 1;
    return sp_random_below(seed, stream, index, 4) == 0 ? 1 : -1;
}

/* q and k become +-1 such that every score is a whole, odd multiple of the scale: blocks of 16 x 16 scores share
 * their sign mostly, and most of them are dead where the scores' sign decides. */
static inline void case_signs(attention_case *c, uint64_t seed) {
    const sp_tensor *tensors[2] = {&c->problem.q, &c->problem.k};
    for (uint64_t i = 0; i < 2; i++) {
        const sp_tensor *tensor = tensors[i];
        for (int64_t b = 0; b < tensor->shape[0]; b++)
            for (int64_t t = 0; t < tensor->shape[1]; t++)
                for (int64_t h = 0; h < tensor->shape[2]; h++)
                    for (int64_t d = 0; d < tensor->shape[3]; d++) {
                        double sign = i == 0 ? 1 : case_row_sign(seed, 40 + (uint64_t)h, t);
                        bool flips = i == 0 && t / 16 % 5 == 1;
                        bool left_out = i == 0 && d == tensor->shape[3] - 1 && d % 2 == 1;
                        if (isnan(case_load(tensor, b, t, h, d))) continue; /* what is not there */
                        case_store(tensor, b, t, h, d, left_out ? 0 : flips ? -sign : sign);
                    }
    }
}

/* Scores are those of the list, one for each key, in every row: q = (1, 0, ...), k[j] = (score, 0, ...), scale 1. */
static inline void case_set_scores(attention_case *c, double (*score)(int64_t key)) {
    const sp_tensor *tensors[2] = {&c->problem.q, &c->problem.k};
    c->problem.scale = 1;
    for (int i = 0; i < 2; i++) {
        const sp_tensor *x = tensors[i];
        for (int64_t b = 0; b < x->shape[0]; b++)
            for (int64_t t = 0; t < x->shape[1]; t++)
                for (int64_t h = 0; h < x->shape[2]; h++)
                    for (int64_t d = 0; d < x->shape[3]; d++)
                        case_store(x, b, t, h, d, d > 0 ? 0 : i == 0 ? 1 : score(t));
    }
}

/* Whether row i of the table can run here and takes the case's problem; *name: its name. */
static inline bool case_takes(const attention_case *c, sp_attention_pass pass, int i, const char **name) {
    const sp_variant *row = sp_variant_at(&sp_attention_table, i);
    sp_attention_question question = {&c->problem, pass};
    const char *why;
    *name = row->name;
    return !(row->needs & ~sp_cpu_features()) && row->accepts(&question, &why);
}

#endif
