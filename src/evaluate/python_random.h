/* The numbers of Python's random.Random(seed), to the bit: lm-eval draws few-shot examples and bootstrap samples with
 * them; and those of numpy.random, by which the scripts for passkey retrieval make their prompts. */
#ifndef SP_EVALUATE_PYTHON_RANDOM_H
#define SP_EVALUATE_PYTHON_RANDOM_H

#include <stdint.h>

#include "base/status.h"

typedef struct sp_python_random { /* the generator MT19937 */
    uint32_t words[624];
    int32_t used; /* words handed out since they were made */
} sp_python_random;

/* Random(seed) of an integer seed. */
void sp_python_random_seed(sp_python_random *random, uint64_t seed);
/* random(): uniform in [0,1), 53 bits. */
double sp_python_random_uniform(sp_python_random *random);
/* randrange(n), n >= 1: uniform in [0,n). */
int64_t sp_python_random_below(sp_python_random *random, int64_t n);
/* randint(low, high): uniform in [low, high], both ends in. */
int64_t sp_python_random_between(sp_python_random *random, int64_t low, int64_t high);
/* sample(range(n), k): k different indices, in the order drawn.  Fails when k > n, or without memory. */
SP_MUST_CHECK sp_status sp_python_random_sample(sp_python_random *random, int64_t n, int64_t k, int64_t *indices);
/* choices(range(n), k=k): k indices with replacement, n >= 1. */
void sp_python_random_choices(sp_python_random *random, int64_t n, int64_t k, int64_t *indices);
/* shuffle(items). */
void sp_python_random_shuffle(sp_python_random *random, int64_t n, int64_t *items);

/* The same generator as numpy.random's functions seed and use it. */
void sp_numpy_random_seed(sp_python_random *random, uint32_t seed);
/* numpy.random.randint(low, high): uniform in [low, high), high - low from 1 to 2^32 - 1. */
int64_t sp_numpy_random_integer(sp_python_random *random, int64_t low, int64_t high);

#endif
