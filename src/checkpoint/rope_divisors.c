/* rope_freqs.weight of a GGUF file: what each rotary frequency f_i = theta^(-2i/D), i < D/2, is divided by.  LLaMA 3's
 * scaling of positions makes the divisor 1 for wave lengths w = 2 pi / f below original / high, `factor` above
 * original / low, and between them 1 / ((1-t) / factor + t) with t = (original / w - low) / (high - low). */
#include "checkpoint/gguf_model.h"

#include <math.h>

#include "base/json.h"

#define PI 3.14159265358979323846

typedef struct scaling {
    double factor, low, high, original;
} scaling;

static double divisor(const scaling *s, int64_t i, int64_t n, double theta) {
    double turns = s->original * pow(theta, -(double)i / (double)n) / (2 * PI); /* original / w */
    if (turns > s->high) return 1;
    if (turns < s->low) return s->factor;
    double t = (turns - s->low) / (s->high - s->low);
    return 1 / ((1 - t) / s->factor + t);
}

static bool gives(const scaling *s, const float *divisors, int64_t n, double theta) {
    bool same = s->low < s->high;
    for (int64_t i = 0; same && i < n; i++) {
        double expected = divisor(s, i, n, theta);
        same = fabs(divisors[i] - expected) <= 1e-5 * expected;
    }
    return same;
}

/* The line of t over original / w through the first and the last divisor between 1 and the factor. */
static bool fit(scaling *s, const float *divisors, int64_t n, double theta) {
    int64_t first = -1, last = -1;
    for (int64_t i = 0; i < n; i++) {
        bool between = divisors[i] > 1.00001 && divisors[i] < s->factor * 0.99999;
        if (between && first < 0) first = i;
        if (between) last = i;
    }
    if (last == first) return false;
    double turns[2], t[2];
    for (int k = 0; k < 2; k++) {
        int64_t i = k ? last : first;
        turns[k] = s->original * pow(theta, -(double)i / (double)n) / (2 * PI);
        t[k] = (1 / divisors[i] - 1 / s->factor) / (1 - 1 / s->factor);
    }
    double slope = (t[1] - t[0]) / (turns[1] - turns[0]);
    s->low = turns[0] - t[0] / slope;
    s->high = s->low + 1 / slope;
    return true;
}

sp_status sp_rope_divisors_to_json(json_t **rope_scaling, const float *divisors, int64_t n, double theta,
                                   const char *source) {
    *rope_scaling = NULL;
    scaling s = {.factor = 1, .low = 1, .high = 4, .original = 8192}; /* LLaMA 3.1's, 3.2's and 3.3's numbers */
    for (int64_t i = 0; i < n; i++) s.factor = fmax(s.factor, divisors[i]);
    if (!gives(&s, divisors, n, theta))
        SP_REQUIRE(fit(&s, divisors, n, theta) && gives(&s, divisors, n, theta), SP_UNSUPPORTED,
                   "%s: tensor rope_freqs.weight is not what LLaMA 3's scaling of positions makes", source);
    *rope_scaling =
        json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", s.factor, "low_freq_factor", s.low,
                  "high_freq_factor", s.high, "original_max_position_embeddings", (json_int_t)s.original);
    SP_REQUIRE(*rope_scaling, SP_OUT_OF_MEMORY, "%s: no memory for its config", source);
    return SP_OK;
}

void sp_rope_divisors(float *divisors, int64_t n, double theta, const json_t *rope_scaling) {
    scaling s = {
        .factor = json_number_value(json_object_get(rope_scaling, "factor")),
        .low = json_number_value(json_object_get(rope_scaling, "low_freq_factor")),
        .high = json_number_value(json_object_get(rope_scaling, "high_freq_factor")),
        .original = json_number_value(json_object_get(rope_scaling, "original_max_position_embeddings")),
    };
    for (int64_t i = 0; i < n; i++) divisors[i] = (float)divisor(&s, i, n, theta);
}
