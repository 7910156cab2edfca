/* Attention on any CPU. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "attention/cpu/simd_scalar.h"

#include "attention/cpu/attention_cpu.inc"

const sp_cpu_body sp_cpu_body_scalar = {forward, backward, rows};
