/* Passkey retrieval: prompts that hide a number in filler, by the two protocols in use. */
#ifndef SP_EVALUATE_PASSKEY_H
#define SP_EVALUATE_PASSKEY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct sp_passkey_protocol {
    const char *name;
    /* Landmark attention (Mohtashami and Jaggi 2023): up to 10 tokens are generated, and the first run of digits in them must
     * be the key.  Otherwise the key's own tokens must be generated exactly (LongLoRA's script, which softpick's paper used
     * with lengths of its own). */
    bool first_number;
    bool numpy; /* position and key are drawn by numpy.random, else by Python's random; both with seed trial + length */
    const int64_t *lengths; /* characters of filler */
    int64_t n_lengths;
} sp_passkey_protocol;

/* "paper" or "landmark"; fails and names both otherwise. */
SP_MUST_CHECK sp_status sp_passkey_protocol_find(const sp_passkey_protocol **out, const char *name);

/* The prompt of a trial with `length` characters of filler, the key standing after a share `depth` of them, or, with
 * depth < 0, where the protocol draws it.  Caller frees *prompt. */
SP_MUST_CHECK sp_status sp_passkey_prompt(char **prompt, int64_t *key, const sp_passkey_protocol *protocol,
                                          int64_t length, int64_t trial, double depth);
/* Whether the first run of digits in the text is the key. */
bool sp_passkey_found(const char *text, int64_t key);

/* Wilson's interval at 95 % for `n_right` of n. */
void sp_wilson_interval(double *low, double *high, int64_t n_right, int64_t n);

#endif
