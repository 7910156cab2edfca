/* What an optimizer holds, for those who save and restore it. */
#ifndef SP_TRAIN_UPDATE_H
#define SP_TRAIN_UPDATE_H

#include "layers/layers.h"
#include "softpick/train.h"

struct sp_optimizer {
    sp_model *model; /* borrowed */
    float *m, *v;    /* (n_parameters), in the order of the model's table of tensors */
    double clip_norm;
    sp_adamw adamw; /* its `step`: updates done */
};

#endif
