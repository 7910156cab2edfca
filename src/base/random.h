/* Random numbers as pure functions of (seed, stream, index): nothing to save, nothing to restore. */
#ifndef SP_BASE_RANDOM_H
#define SP_BASE_RANDOM_H

#include <stdint.h>

/* 64 well-mixed bits of the three words (the finalizer of splitmix64, Steele et al. 2014, applied in turn). */
uint64_t sp_random_bits(uint64_t seed, uint64_t stream, uint64_t index);
/* Uniform in [0,1), 53 bits. */
double sp_random_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* Standard normal (Box-Muller). */
double sp_random_normal(uint64_t seed, uint64_t stream, uint64_t index);
/* Uniform in [0,n), n >= 1 (multiply-shift; bias below n / 2^64). */
uint64_t sp_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n);
/* Element `index` of a permutation of [0,n): a bijection for each (seed, stream), without a table. */
uint64_t sp_random_permuted(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n);

#endif
