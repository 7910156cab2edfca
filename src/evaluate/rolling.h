/* Log-probability of whole texts, of any length: lm-eval's rolling windows. */
#ifndef SP_EVALUATE_ROLLING_H
#define SP_EVALUATE_ROLLING_H

#include <stdint.h>

/* A window over the run of tokens [prefix | text]: tokens [first, first + n_tokens) of it, of which the last n_scored are
 * predicted. */
typedef struct sp_rolling_window {
    int64_t first, n_tokens, n_scored;
} sp_rolling_window;

/* Windows that predict each of n_text tokens once, with `max_length` (>= 1) tokens seen at once. */
int64_t sp_rolling_n_windows(int64_t n_text, int64_t max_length);
/* The i-th of them.  All but the last predict max_length tokens, the first from the prefix on, each other from one token of
 * the window before; the last sees as many tokens as it can. */
sp_rolling_window sp_rolling_window_at(int64_t i, int64_t n_text, int64_t max_length);

#endif
