/* Sums over rows of attention weights: by the chosen variant's own function, or from its rows. */
#include "attention/row_sums.h"

#include "attention/problem.h"
#include "attention/select.h"
#include "base/status.h"

typedef struct sums_walk {
    const sp_attention *problem;
    const sp_row_sums *sums;
    float small;
} sums_walk;

static void add_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                    int64_t first, int64_t end) {
    const sums_walk *walk = user;
    const sp_row_sums *sums = walk->sums;
    const sp_sequence sequence = sp_problem_sequence(walk->problem, b);
    int64_t index = sp_problem_lse_index(walk->problem, &sequence, h, t), zeros = 0, small = 0;
    double mass = 0;
    (void)scores;
    for (int64_t j = first; j < end; j++) {
        mass += (double)weights[j];
        zeros += weights[j] == 0;
        small += weights[j] <= walk->small;
    }
    if (sums->mass) sums->mass[index] = (float)mass;
    if (sums->first) sums->first[index] = first == 0 && end > 0 ? weights[0] : 0;
    if (sums->zeros) sums->zeros[index] = zeros;
    if (sums->small) sums->small[index] = small;
}

sp_status sp_attention_row_sums(const sp_attention *callers, float small, const sp_row_sums *sums) {
    sp_attention problem;
    const sp_attention_row *row;
    SP_TRY(sp_problem_read(&problem, callers));
    SP_REQUIRE(!problem.page_table, SP_BAD_ARGUMENT, "page_table is given, but sums over rows take no pages");
    SP_TRY(sp_problem_check_keys(&problem));
    SP_TRY(sp_attention_select(&problem, SP_ATTENTION_FORWARD, &row));
    if (row->row_sums) return row->row_sums(&problem, small, sums);
    sums_walk walk = {&problem, sums, small};
    return row->rows(&problem, add_row, &walk);
}
