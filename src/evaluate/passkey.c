/* Passkey retrieval: the prompts and what counts as right.  Five lines: what the task is, filler, the line with the key,
 * filler, the question.  Both pieces of filler begin at the start of the same repeated sentences, and are cut by characters. */
#define _GNU_SOURCE /* asprintf */
#include "evaluate/passkey.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "evaluate/python_random.h"

#define TASK                                                                                                           \
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "   \
    "about the important information there."
#define QUESTION "What is the pass key? The pass key is"
static const char filler[] =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";

/* 3.75 characters a token, rounded down, times 1024: the paper's 1 to 5 thousand tokens. */
static const int64_t paper_lengths[] = {3072, 7168, 11264, 15360, 18432};
static const int64_t landmark_lengths[] = {0,     100,   500,   1000,  5000,  8000, 10000,
                                           12000, 14000, 18000, 20000, 25000, 38000};
static const sp_passkey_protocol protocols[] = {
    {"paper", false, true, paper_lengths, sizeof paper_lengths / sizeof *paper_lengths},
    {"landmark", true, false, landmark_lengths, sizeof landmark_lengths / sizeof *landmark_lengths},
};

sp_status sp_passkey_protocol_find(const sp_passkey_protocol **out, const char *name) {
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++) {
        *out = &protocols[i];
        if (strcmp(protocols[i].name, name) == 0) return SP_OK;
    }
    *out = NULL;
    return sp_fail(SP_BAD_ARGUMENT, "passkey protocol \"%s\": there are paper and landmark", name);
}

static void fill(char *text, int64_t n) {
    for (int64_t i = 0; i < n; i++) text[i] = filler[i % (int64_t)(sizeof filler - 1)];
    text[n] = 0;
}

/* Characters before the key's line, and the key; drawn in this order. */
static void draw(int64_t *before, int64_t *key, const sp_passkey_protocol *protocol, int64_t length, int64_t trial) {
    sp_python_random random;
    if (protocol->numpy) {
        sp_numpy_random_seed(&random, (uint32_t)(trial + length));
        *before = length > 0 ? sp_numpy_random_integer(&random, 0, length) : 0;
        *key = sp_numpy_random_integer(&random, 1, 50000);
    } else {
        sp_python_random_seed(&random, (uint64_t)(trial + length));
        *before = sp_python_random_between(&random, 0, length);
        *key = sp_python_random_between(&random, 1, 50000);
    }
}

sp_status sp_passkey_prompt(char **prompt, int64_t *key, const sp_passkey_protocol *protocol, int64_t length,
                            int64_t trial, double depth) {
    char *first = NULL, *second = NULL;
    int64_t before;
    sp_status status;
    *prompt = NULL;
    draw(&before, key, protocol, length, trial);
    if (depth >= 0) before = llround(depth * (double)length);
    SP_TRY_OR_DONE(sp_allocate((void **)&first, before + 1, "filler"));
    SP_TRY_OR_DONE(sp_allocate((void **)&second, length - before + 1, "filler"));
    fill(first, before);
    fill(second, length - before);
    long long k = *key;
    if (asprintf(prompt, "%s\n%s\nThe pass key is %lld. Remember it. %lld is the pass key.\n%s\n%s", TASK, first, k, k,
                 second, QUESTION) < 0) {
        *prompt = NULL;
        status = sp_fail(SP_OUT_OF_MEMORY, "no memory for a passkey prompt");
    }
done:
    free(first);
    free(second);
    return status;
}

bool sp_passkey_found(const char *text, int64_t key) {
    const char *digits = strpbrk(text, "0123456789");
    if (!digits) return false;
    int64_t number = 0;
    for (; *digits >= '0' && *digits <= '9'; digits++) {
        number = 10 * number + (*digits - '0');
        if (number > key) return false;
    }
    return number == key;
}

void sp_wilson_interval(double *low, double *high, int64_t n_right, int64_t n) {
    const double z = 1.959963984540054;
    double share = (double)n_right / (double)n, square = z * z / (double)n;
    double centre = (share + square / 2) / (1 + square);
    double half = z * sqrt(share * (1 - share) / (double)n + square / (4 * (double)n)) / (1 + square);
    *low = fmax(0, centre - half);
    *high = fmin(1, centre + half);
}
