/* Learning rates as pure functions of the step, so that a resumed run has nothing to restore.
 *
 *   factor
 *    1 |    /--------\            step s counts from 0, W warm-up steps, E steps of decay at the end
 *      |   /          \           warm-up:  (s + 1) / (W + 1)
 *      |  /            \__ floor  stable:   1
 *      +-+----+-----+-----> s     decay:    floor + (1 - floor) f(p),  p = (s + 1 - W - stable) / (E + 1)
 *        0    W   n-E   n
 *
 * The formulas are those of the trainer that the paper used (torchtitan, April 2025); the rate is never 0,
 * neither in the first nor in the last step. */
#include "train/schedule.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

static const double pi = 3.14159265358979323846;

static double decay_cosine(double p) { return 0.5 * (1 + cos(pi * p)); }
static double decay_linear(double p) { return 1 - p; }
static double decay_sqrt(double p) { return 1 - sqrt(p); }

/* decay NULL: the rate stays at its peak, and the run needs no end. */
static const struct {
    const char *name;
    double (*decay)(double p);
    bool stable_first; /* decays in the last decay_fraction of the steps alone */
} schedules[] = {
    [SP_SCHEDULE_COSINE] = {"cosine", decay_cosine, false},
    [SP_SCHEDULE_LINEAR] = {"linear", decay_linear, false},
    [SP_SCHEDULE_WSD] = {"wsd", decay_sqrt, true},
    [SP_SCHEDULE_CONSTANT] = {"constant", NULL, false},
};
enum { N_SCHEDULES = sizeof schedules / sizeof *schedules };

static bool is_schedule(sp_schedule schedule) { return (int)schedule >= 0 && (int)schedule < N_SCHEDULES; }

const char *sp_schedule_name(sp_schedule schedule) { return is_schedule(schedule) ? schedules[schedule].name : "?"; }

bool sp_schedule_ends(sp_schedule schedule) { return is_schedule(schedule) && schedules[schedule].decay; }

sp_status sp_schedule_find(sp_schedule *out, const char *name) {
    for (int i = 0; i < N_SCHEDULES; i++) {
        if (strcmp(name, schedules[i].name) != 0) continue;
        *out = (sp_schedule)i;
        return SP_OK;
    }
    return sp_fail(SP_BAD_ARGUMENT, "\"%s\" is not a schedule: cosine, linear, wsd or constant", name);
}

int64_t sp_train_n_steps(const sp_train_options *options) {
    int64_t tokens_per_step = options->B * options->T * options->n_accumulate;
    if (options->n_tokens == 0 || tokens_per_step <= 0) return options->n_steps;
    int64_t by_tokens = (options->n_tokens - 1) / tokens_per_step + 1;
    if (options->n_steps == 0) return by_tokens;
    return options->n_steps < by_tokens ? options->n_steps : by_tokens;
}

int64_t sp_train_warmup_steps(const sp_train_options *options, int64_t n_steps) {
    if (options->warmup_steps >= 0) return options->warmup_steps;
    return n_steps == 0 || n_steps > 1000 ? 100 : n_steps / 10;
}

int64_t sp_train_decay_steps(const sp_train_options *options, int64_t n_steps) {
    if (!sp_schedule_ends(options->schedule)) return 0;
    if (schedules[options->schedule].stable_first) return llround((double)n_steps * options->decay_fraction);
    return n_steps - sp_train_warmup_steps(options, n_steps);
}

double sp_train_learning_rate(const sp_train_options *options, int64_t n_steps, int64_t step) {
    int64_t warmup = sp_train_warmup_steps(options, n_steps);
    int64_t decay = sp_train_decay_steps(options, n_steps), decay_first = n_steps - decay;
    double factor = 1;
    if (step < warmup)
        factor = (double)(step + 1) / (double)(warmup + 1);
    else if (decay > 0 && step >= decay_first) {
        double p = (double)(step + 1 - decay_first) / (double)(decay + 1);
        double f = schedules[options->schedule].decay(p < 1 ? p : 1);
        factor = options->rate_floor + (1 - options->rate_floor) * f;
    }
    return options->learning_rate * factor;
}
