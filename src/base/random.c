/* Random numbers as pure functions of (seed, stream, index). */
#include "base/random.h"

#include <math.h>

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t sp_random_bits(uint64_t seed, uint64_t stream, uint64_t index) { return mix(mix(mix(seed) ^ stream) ^ index); }

double sp_random_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    return (double)(sp_random_bits(seed, stream, index) >> 11) * 0x1p-53;
}

double sp_random_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    double radius = sp_random_uniform(seed, stream, 2 * index);
    double angle = sp_random_uniform(seed, stream, 2 * index + 1);
    /* 1 - radius lies in (0,1]: the logarithm is finite. */
    return sqrt(-2.0 * log(1.0 - radius)) * cos(6.283185307179586477 * angle);
}

uint64_t sp_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n) {
    return (uint64_t)(((unsigned __int128)sp_random_bits(seed, stream, index) * n) >> 64);
}

/* A Feistel network on the smallest even number of bits that holds n, walked until it lands below n. */
uint64_t sp_random_permuted(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n) {
    if (n <= 1) return 0;
    int half = (65 - __builtin_clzll(n - 1)) / 2;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = index >> half, right = index & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint64_t next = left ^ (sp_random_bits(seed ^ mix(round), stream, right) & mask);
            left = right;
            right = next;
        }
        index = left << half | right;
    } while (index >= n);
    return index;
}
