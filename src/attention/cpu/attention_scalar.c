/* Attention on any CPU. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "attention/cpu/simd_scalar.h"

#include "attention/cpu/attention_cpu.inc"
#include "attention/cpu/decode.inc"

const sp_cpu_body sp_cpu_body_scalar = SP_CPU_BODY;
const sp_decode_body sp_decode_body_scalar = {decode_partial, decode_merge};
