/* What the CPU and its system offer.  On x86-64: CPUID, the register state the system saves (XGETBV), and leave to use
 * AMX tiles.  On 64-bit Arm: the kernel's capability bits.  One table of features: detection, SP_CPU and listing read
 * it. */
#define _GNU_SOURCE /* sched_getaffinity, syscall */
#include "softpick/device.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/variant.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

typedef struct cpu_feature {
    const char *name;
    uint32_t bit;
    bool (*has)(void);
} cpu_feature;

static char model[64] = "unknown CPU";

#if defined(__x86_64__)

/* EAX, EBX, ECX, EDX of a leaf of CPUID; zeros where there is none. */
typedef struct cpu_words {
    uint32_t a, b, c, d;
} cpu_words;

static cpu_words cpu_leaf(uint32_t leaf, uint32_t index) {
    cpu_words words;
    if (__get_cpuid_count(leaf, index, &words.a, &words.b, &words.c, &words.d)) return words;
    return (cpu_words){0};
}

/* Whether the system saves these parts of the registers (bits of XCR0). */
static bool saves(uint64_t state) {
    if (!(cpu_leaf(1, 0).c >> 27 & 1)) return false; /* OSXSAVE: XGETBV may be executed */
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (((uint64_t)high << 32 | low) & state) == state;
}

static bool has_avx2(void) {
    const uint32_t fma_avx_f16c = 1u << 12 | 1u << 28 | 1u << 29;
    return saves(0x6) && (cpu_leaf(1, 0).c & fma_avx_f16c) == fma_avx_f16c && (cpu_leaf(7, 0).b >> 5 & 1);
}

static bool has_avx512(void) {
    const uint32_t f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    return saves(0xe6) && (cpu_leaf(7, 0).b & f_dq_bw_vl) == f_dq_bw_vl;
}

static bool has_avx512_bf16(void) { return cpu_leaf(7, 1).a >> 5 & 1; }

/* Linux gives tile registers only on request, once per process. */
static bool request_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

static bool has_amx_bf16(void) {
    const uint32_t bf16_tile = 1u << 22 | 1u << 24;
    return saves(0x60000) && (cpu_leaf(7, 0).d & bf16_tile) == bf16_tile && request_tiles();
}

/* Lowest first; each needs the one before it. */
static const cpu_feature features[] = {
    {"avx2", SP_CPU_AVX2, has_avx2},
    {"avx512", SP_CPU_AVX512, has_avx512},
    {"avx512_bf16", SP_CPU_AVX512_BF16, has_avx512_bf16},
    {"amx", SP_CPU_AMX_BF16, has_amx_bf16},
};

enum { N_FEATURES = sizeof features / sizeof *features };

static void read_model(void) {
    cpu_words words[3];
    uint32_t highest = __get_cpuid_max(0x80000000u, NULL);
    if (highest < 0x80000004u) return;
    for (uint32_t i = 0; i < 3; i++) words[i] = cpu_leaf(0x80000002u + i, 0);
    memcpy(model, words, sizeof words);
    model[sizeof words] = '\0';
    size_t length = strlen(model);
    while (length && model[length - 1] == ' ') model[--length] = '\0';
}

#elif defined(__aarch64__)

static bool has_neon(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0; }

static const cpu_feature features[] = {{"neon", SP_CPU_NEON, has_neon}};

enum { N_FEATURES = sizeof features / sizeof *features };

/* MIDR_EL1, which the kernel lets a process read where it says so; 0x41 0xd40 is Arm's Neoverse V1. */
static void read_model(void) {
    uint64_t midr;
    snprintf(model, sizeof model, "64-bit Arm");
    if (!(getauxval(AT_HWCAP) & HWCAP_CPUID)) return;
    __asm__("mrs %0, MIDR_EL1" : "=r"(midr));
    snprintf(model, sizeof model, "64-bit Arm, implementer 0x%x, part 0x%x", (unsigned)(midr >> 24 & 0xff),
             (unsigned)(midr >> 4 & 0xfff));
}

#else

static const cpu_feature *const features = NULL;

enum { N_FEATURES = 0 };

static void read_model(void) {}

#endif

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

static void detect(void) {
    int left = features_left();
    limit_known = left >= 0;
    for (int i = 0; i < (limit_known ? left : N_FEATURES) && features[i].has(); i++) feature_bits |= features[i].bit;
    read_model();
}

uint32_t sp_cpu_features(void) {
    pthread_once(&once, detect);
    return feature_bits;
}

sp_status sp_cpu_check(void) {
    pthread_once(&once, detect);
    if (limit_known) return SP_OK;
    char names[64] = "scalar";
    for (int i = 0; i < N_FEATURES; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i + 1 < N_FEATURES ? ", " : " or ", features[i].name);
    }
    return sp_fail(SP_BAD_ARGUMENT, "SP_CPU=%s: it can be %s", getenv("SP_CPU"), names);
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
