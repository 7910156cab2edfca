/* Python's random.Random: MT19937 (Matsumoto and Nishimura 1998) and the few rules by which CPython 3.6 to 3.13 turns its
 * words into numbers; numpy's older interface has rules of its own. */
#include "evaluate/python_random.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/memory.h"

enum { N_WORDS = 624, SHIFT = 397 };

static void seed_word(sp_python_random *random, uint32_t seed) {
    random->words[0] = seed;
    for (uint32_t i = 1; i < N_WORDS; i++) {
        uint32_t last = random->words[i - 1];
        random->words[i] = 1812433253u * (last ^ (last >> 30)) + i;
    }
}

/* Python seeds by the 32-bit words of the integer, lowest first; a small integer is one word. */
void sp_python_random_seed(sp_python_random *random, uint64_t seed) {
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t n_key = key[1] ? 2 : 1, *words = random->words, i = 1;
    seed_word(random, 19650218u);
    for (uint32_t step = 0; step < N_WORDS; step++) {
        words[i] = (words[i] ^ ((words[i - 1] ^ (words[i - 1] >> 30)) * 1664525u)) + key[step % n_key] + step % n_key;
        if (++i == N_WORDS) {
            words[0] = words[N_WORDS - 1];
            i = 1;
        }
    }
    for (uint32_t step = 1; step < N_WORDS; step++) {
        words[i] = (words[i] ^ ((words[i - 1] ^ (words[i - 1] >> 30)) * 1566083941u)) - i;
        if (++i == N_WORDS) {
            words[0] = words[N_WORDS - 1];
            i = 1;
        }
    }
    words[0] = 0x80000000u;
    random->used = N_WORDS;
}

static inline uint32_t twist(uint32_t high, uint32_t low, uint32_t far) {
    uint32_t joined = (high & 0x80000000u) | (low & 0x7fffffffu);
    return far ^ (joined >> 1) ^ (-(low & 1u) & 0x9908b0dfu);
}

static void renew(sp_python_random *random) {
    uint32_t *words = random->words;
    int i = 0;
    for (; i < N_WORDS - SHIFT; i++) words[i] = twist(words[i], words[i + 1], words[i + SHIFT]);
    for (; i < N_WORDS - 1; i++) words[i] = twist(words[i], words[i + 1], words[i + SHIFT - N_WORDS]);
    words[N_WORDS - 1] = twist(words[N_WORDS - 1], words[0], words[SHIFT - 1]);
    random->used = 0;
}

static inline uint32_t next_word(sp_python_random *random) {
    if (random->used == N_WORDS) renew(random);
    uint32_t word = random->words[random->used++];
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
}

static inline double uniform(sp_python_random *random) {
    uint32_t high = next_word(random) >> 5, low = next_word(random) >> 6;
    return (high * 67108864.0 + low) * 0x1p-53;
}

double sp_python_random_uniform(sp_python_random *random) { return uniform(random); }

/* As many bits as n has, drawn again until they are below n. */
int64_t sp_python_random_below(sp_python_random *random, int64_t n) {
    int bits = 64 - __builtin_clzll((uint64_t)n);
    uint64_t drawn;
    do {
        if (bits <= 32) {
            drawn = next_word(random) >> (32 - bits);
        } else {
            drawn = next_word(random);
            drawn |= (uint64_t)(next_word(random) >> (64 - bits)) << 32;
        }
    } while (drawn >= (uint64_t)n);
    return (int64_t)drawn;
}

int64_t sp_python_random_between(sp_python_random *random, int64_t low, int64_t high) {
    return low + sp_python_random_below(random, high - low + 1);
}

/* From a list that shrinks: what is drawn is replaced by the last of those left. */
static sp_status sample_from_pool(sp_python_random *random, int64_t n, int64_t k, int64_t *indices) {
    int64_t *pool = NULL;
    SP_TRY(sp_allocate((void **)&pool, n * (int64_t)sizeof *pool, "the pool of a random sample"));
    for (int64_t i = 0; i < n; i++) pool[i] = i;
    for (int64_t i = 0; i < k; i++) {
        int64_t at = sp_python_random_below(random, n - i);
        indices[i] = pool[at];
        pool[at] = pool[n - i - 1];
    }
    free(pool);
    return SP_OK;
}

static bool is_among(const int64_t *items, int64_t n, int64_t item) {
    for (int64_t i = 0; i < n; i++) {
        if (items[i] == item) return true;
    }
    return false;
}

sp_status sp_python_random_sample(sp_python_random *random, int64_t n, int64_t k, int64_t *indices) {
    SP_REQUIRE(k >= 0 && k <= n, SP_BAD_ARGUMENT, "cannot draw %lld different items of %lld", (long long)k,
               (long long)n);
    double set_size = 21; /* CPython's guess of the size of a set: below it, it works with a list */
    if (k > 5) set_size += pow(4, ceil(log(3.0 * (double)k) / log(4.0)));
    if ((double)n <= set_size) return sample_from_pool(random, n, k, indices);
    for (int64_t i = 0; i < k; i++) {
        do indices[i] = sp_python_random_below(random, n);
        while (is_among(indices, i, indices[i]));
    }
    return SP_OK;
}

void sp_python_random_choices(sp_python_random *random, int64_t n, int64_t k, int64_t *indices) {
    for (int64_t i = 0; i < k; i++) indices[i] = (int64_t)(uniform(random) * (double)n);
}

void sp_python_random_shuffle(sp_python_random *random, int64_t n, int64_t *items) {
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t at = sp_python_random_below(random, i + 1), item = items[i];
        items[i] = items[at];
        items[at] = item;
    }
}

void sp_numpy_random_seed(sp_python_random *random, uint32_t seed) {
    seed_word(random, seed);
    random->used = N_WORDS;
}

/* As many low bits as the largest value has, drawn again until they are not above it; one value takes no draw. */
int64_t sp_numpy_random_integer(sp_python_random *random, int64_t low, int64_t high) {
    uint32_t largest = (uint32_t)(high - low - 1), drawn;
    if (largest == 0) return low;
    uint32_t mask = UINT32_MAX >> __builtin_clz(largest);
    do drawn = next_word(random) & mask;
    while (drawn > largest);
    return low + drawn;
}
