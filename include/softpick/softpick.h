/* All stable headers at once. */
#ifndef SOFTPICK_SOFTPICK_H
#define SOFTPICK_SOFTPICK_H

#include "softpick/attention.h"
#include "softpick/device.h"
#include "softpick/status.h"
#include "softpick/tensor.h"

#endif
