/* Cutting a pass into items, the same for all families of CPU code. */
#include "attention/cpu/items.h"

#include <string.h>

int sp_items_compare(const void *left, const void *right) {
    const sp_cpu_item *a = left, *b = right;
    if (a->work != b->work) return a->work < b->work ? 1 : -1;
    if (a->sequence != b->sequence) return a->sequence < b->sequence ? -1 : 1;
    if (a->head != b->head) return a->head < b->head ? -1 : 1;
    return a->first < b->first ? -1 : a->first > b->first;
}

int64_t sp_items_count_queries(const sp_attention *problem, int64_t n_queries) {
    int64_t n = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++)
        n += problem->q.shape[2] * ((sp_problem_sequence(problem, i).n_q + n_queries - 1) / n_queries);
    return n;
}

int64_t sp_items_choose_queries(const sp_attention *problem, int64_t highest, int64_t lowest, int n_threads) {
    int64_t n = highest;
    while (n > lowest && sp_items_count_queries(problem, n) < 4 * (int64_t)n_threads) n /= 2;
    return n;
}

/* Scores that queries [first, first + n) see, or nearly so: every eighth query speaks for its neighbours. */
static int64_t count_scores(const sp_attention *problem, const sp_sequence *sequence, int64_t first, int64_t n) {
    int64_t count = 0;
    for (int64_t t = first; t < first + n; t += 8) {
        sp_key_range keys = sp_problem_visible(problem, sequence, t);
        count += keys.end - keys.first + 1;
    }
    return count;
}

void sp_items_list_queries(const sp_attention *problem, int64_t n_queries, sp_cpu_item *items) {
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        sp_sequence sequence = sp_problem_sequence(problem, i);
        for (int64_t first = 0; first < sequence.n_q; first += n_queries) {
            int64_t n = sequence.n_q - first < n_queries ? sequence.n_q - first : n_queries;
            int64_t work = count_scores(problem, &sequence, first, n);
            for (int64_t h = 0; h < problem->q.shape[2]; h++)
                *items++ = (sp_cpu_item){.sequence = i, .head = h, .first = first, .n = n, .work = work};
        }
    }
}

void sp_items_clear_liveness(const sp_attention *problem) {
    if (!problem->liveness) return;
    sp_liveness_shape shape = sp_problem_liveness_shape(problem);
    int64_t n = sp_problem_n_sequences(problem) * problem->q.shape[2] * shape.n_query_tiles * shape.n_key_tiles;
    memset(problem->liveness, 0, (size_t)n * sizeof *problem->liveness);
}
