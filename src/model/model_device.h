/* A model's device and what lies there, for those who change its values. */
#ifndef SP_MODEL_MODEL_DEVICE_H
#define SP_MODEL_MODEL_DEVICE_H

#include "device/device.h"
#include "softpick/model.h"

sp_device *sp_model_device_of(sp_model *model);
/* bf16 copies of the values (n_parameters); NULL in f32. */
uint16_t *sp_model_halves(sp_model *model);

#endif
