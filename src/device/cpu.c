/* What the CPU and its system offer: CPUID, the register state the system saves (XGETBV), and leave to use AMX tiles.
 * One table of features: detection, SP_CPU and listing read it. */
#define _GNU_SOURCE /* sched_getaffinity, syscall */
#include "softpick/device.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "device/variant.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

typedef struct cpu_words {
    uint32_t leaf1_ecx, leaf7_eax_1, leaf7_ebx, leaf7_edx;
    uint64_t saved_state; /* XCR0 */
} cpu_words;

#if defined(__x86_64__)
static cpu_words read_words(void) {
    cpu_words words = {0};
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d)) words.leaf1_ecx = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        words.leaf7_ebx = b;
        words.leaf7_edx = d;
    }
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) words.leaf7_eax_1 = a;
    if (words.leaf1_ecx >> 27 & 1) { /* OSXSAVE: XGETBV may be executed */
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        words.saved_state = (uint64_t)high << 32 | low;
    }
    return words;
}

/* Linux gives tile registers only on request, once per process. */
static bool request_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}
#else
static cpu_words read_words(void) { return (cpu_words){0}; }
static bool request_tiles(void) { return false; }
#endif

static bool saves(const cpu_words *words, uint64_t state) { return (words->saved_state & state) == state; }

static bool has_avx2(const cpu_words *words) {
    const uint32_t fma_avx_f16c = 1u << 12 | 1u << 28 | 1u << 29;
    return saves(words, 0x6) && (words->leaf1_ecx & fma_avx_f16c) == fma_avx_f16c && (words->leaf7_ebx >> 5 & 1);
}

static bool has_avx512(const cpu_words *words) {
    const uint32_t f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    return saves(words, 0xe6) && (words->leaf7_ebx & f_dq_bw_vl) == f_dq_bw_vl;
}

static bool has_avx512_bf16(const cpu_words *words) { return words->leaf7_eax_1 >> 5 & 1; }

static bool has_amx_bf16(const cpu_words *words) {
    const uint32_t bf16_tile = 1u << 22 | 1u << 24;
    return saves(words, 0x60000) && (words->leaf7_edx & bf16_tile) == bf16_tile && request_tiles();
}

/* Lowest first; each needs the one before it. */
static const struct {
    const char *name;
    uint32_t bit;
    bool (*has)(const cpu_words *words);
} features[] = {
    {"avx2", SP_CPU_AVX2, has_avx2},
    {"avx512", SP_CPU_AVX512, has_avx512},
    {"avx512_bf16", SP_CPU_AVX512_BF16, has_avx512_bf16},
    {"amx", SP_CPU_AMX_BF16, has_amx_bf16},
};

enum { N_FEATURES = sizeof features / sizeof *features };

/* How many features SP_CPU leaves: 0 for scalar, all when it is not set; -1 for a name that is not known. */
static int features_left(void) {
    const char *highest = getenv("SP_CPU");
    if (!highest || !*highest) return N_FEATURES;
    if (strcmp(highest, "scalar") == 0) return 0;
    for (int i = 0; i < N_FEATURES; i++)
        if (strcmp(highest, features[i].name) == 0) return i + 1;
    return -1;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint32_t feature_bits;
static bool limit_known;
static char model[64] = "unknown CPU";

static void read_model(void) {
#if defined(__x86_64__)
    uint32_t words[12], highest = __get_cpuid_max(0x80000000u, NULL);
    if (highest < 0x80000004u) return;
    for (uint32_t i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]);
    memcpy(model, words, sizeof words);
    model[sizeof words] = '\0';
    size_t length = strlen(model);
    while (length && model[length - 1] == ' ') model[--length] = '\0';
#endif
}

static void detect(void) {
    cpu_words words = read_words();
    int left = features_left();
    limit_known = left >= 0;
    for (int i = 0; i < (limit_known ? left : N_FEATURES) && features[i].has(&words); i++)
        feature_bits |= features[i].bit;
    read_model();
}

uint32_t sp_cpu_features(void) {
    pthread_once(&once, detect);
    return feature_bits;
}

sp_status sp_cpu_check(void) {
    pthread_once(&once, detect);
    SP_REQUIRE(limit_known, SP_BAD_ARGUMENT, "SP_CPU=%s: it can be scalar, avx2, avx512, avx512_bf16 or amx",
               getenv("SP_CPU"));
    return SP_OK;
}

bool sp_cpu_feature_at(int i, const char **name, uint32_t *bit) {
    if (i < 0 || i >= N_FEATURES) return false;
    *name = features[i].name;
    *bit = features[i].bit;
    return true;
}

const char *sp_cpu_model(void) {
    pthread_once(&once, detect);
    return model;
}

int sp_cpu_count(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}
