/* The table of attention variants, best first. */
#ifndef SP_ATTENTION_SELECT_H
#define SP_ATTENTION_SELECT_H

#include "attention/problem.h"
#include "attention/row_sums.h"
#include "device/variant.h"

typedef struct sp_attention_row {
    sp_variant variant; /* accepts: of an sp_attention_question */
    sp_status (*workspace)(const sp_attention *problem, sp_attention_pass pass, int n_threads, int64_t *n_bytes);
    sp_status (*run)(const sp_attention *problem, sp_attention_pass pass, int n_threads, void *workspace);
    sp_status (*rows)(const sp_attention *problem, sp_attention_row_function function, void *user);
    /* as sp_attention_row_sums; NULL: summed from `rows` */
    sp_status (*row_sums)(const sp_attention *problem, float small, const sp_row_sums *sums);
    bool gpu; /* takes tensors on a GPU, the others tensors in host memory */
} sp_attention_row;

typedef struct sp_attention_question {
    const sp_attention *problem;
    sp_attention_pass pass;
} sp_attention_question;

extern const sp_variant_table sp_attention_table;

/* The row that runs this pass. */
SP_MUST_CHECK sp_status sp_attention_select(const sp_attention *problem, sp_attention_pass pass,
                                            const sp_attention_row **row);

/* Rows of a checked problem in host memory, by the best row of the CPU whatever row the environment names: for problems
 * that were copied from a GPU, where the name may be one of the GPU's. */
SP_MUST_CHECK sp_status sp_attention_host_rows(const sp_attention *problem, sp_attention_row_function function,
                                               void *user);

#endif
