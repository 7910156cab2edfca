/* Attention with Advanced SIMD: every 64-bit Arm CPU. */
#include "attention/cpu/attention_cpu.h"

#if defined(__aarch64__)

#include <stdbool.h>
#include <string.h>

#include "attention/cpu/simd_neon.h"

#include "attention/cpu/attention_cpu.inc"
#include "attention/cpu/decode.inc"

const sp_cpu_body sp_cpu_body_neon = SP_CPU_BODY;
const sp_decode_body sp_decode_body_neon = {decode_partial, decode_merge};
#endif
