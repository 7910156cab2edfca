/* A batch of random tokens, one target of seven missing. */
#ifndef SP_TESTS_RANDOM_BATCH_H
#define SP_TESTS_RANDOM_BATCH_H

#include "base/random.h"
#include "softpick/model.h"

/* Fills tokens and targets (B*T); `cu` NULL: no packed documents. */
static inline sp_batch random_batch(int32_t *tokens, int32_t *targets, int64_t B, int64_t T, int64_t V,
                                    const int64_t *cu, int64_t n_sequences) {
    for (int64_t i = 0; i < B * T; i++) {
        tokens[i] = (int32_t)sp_random_below(1, 2, (uint64_t)i, (uint64_t)V);
        targets[i] = i % 7 == 3 ? -1 : (int32_t)sp_random_below(1, 3, (uint64_t)i, (uint64_t)V);
    }
    return (sp_batch){.B = B, .T = T, .tokens = tokens, .targets = targets, .cu = cu, .n_sequences = n_sequences};
}

#endif
