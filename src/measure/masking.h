/* What a model's loss becomes when some heads say nothing (arXiv 2504.20966, Table 5). */
#ifndef SP_MEASURE_MASKING_H
#define SP_MEASURE_MASKING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "measure/attention_sums.h"
#include "softpick/model.h"

enum { SP_MASKING_CONTROLS = 3 };

/* Heads whose outputs are near zero, masked; and as many others, drawn at random. */
typedef struct sp_masking_row {
    int64_t n_masked;
    double loss;                          /* nats per token */
    int64_t n_controls;                   /* 0: no head is dead, or all are */
    int64_t n_control_heads;              /* masked in each: as many, or all that are not dead */
    double controls[SP_MASKING_CONTROLS]; /* losses */
} sp_masking_row;

typedef struct sp_masking {
    int64_t n_targets; /* 0: not done */
    double loss;       /* of the model as it is */
    sp_masking_row rows[SP_NEAR_ZEROS];
} sp_masking;

/* Sum of the losses of the model as it is now, and the number of tokens that it is over. */
typedef sp_status (*sp_masking_loss)(void *user, double *loss_sum, int64_t *n_targets);

/* heads (L,H).  The model's weights change on the way and are as before when it returns, also on failure, unless the
 * device fails. */
SP_MUST_CHECK sp_status sp_masking_run(sp_masking *out, sp_model *model, const sp_head_sums *heads,
                                       sp_masking_loss loss, void *user);

/* A head's output is 0 to all that follows when its columns of the output projection are. */
typedef struct sp_head_mask sp_head_mask;
SP_MUST_CHECK sp_status sp_head_mask_new(sp_head_mask **out, sp_model *model);
/* masked (L,H); NULL: none. */
SP_MUST_CHECK sp_status sp_head_mask_set(sp_head_mask *mask, const bool *masked);
/* Does not unmask: sp_head_mask_set with NULL does. */
void sp_head_mask_free(sp_head_mask *mask);

#endif
