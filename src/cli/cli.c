/* What the subcommands share: exit codes, values of options, progress, threads, signals. */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int cli_fail(sp_status status) {
    const char *message = sp_last_message();
    fprintf(stderr, "%s\n", *message ? message : sp_status_name(status));
    switch (status) {
    case SP_IO:
    case SP_BAD_FILE:
    case SP_VERSION: return CLI_BAD_FILE;
    case SP_BAD_ARGUMENT: return CLI_USAGE;
    default: return CLI_FAILED;
    }
}

void cli_parse(const struct argp *argp, int argc, char **argv, void *input) {
    error_t code = argp_parse(argp, argc, argv, 0, NULL, input);
    if (code == 0) return;
    fprintf(stderr, "%s: %s\n", argv[0], strerror(code));
    exit(CLI_FAILED);
}

/* ---- values of options ---- */

double cli_number(struct argp_state *state, const char *option, const char *text, double min, double max) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        argp_error(state, "%s: \"%s\" is not a number", option, text);
    else if (value < min || value > max)
        argp_error(state, "%s: %s is not between %g and %g", option, text, min, max);
    return value;
}

static int64_t suffix_factor(const char *suffix) {
    static const struct {
        const char *name;
        int64_t factor;
    } table[] = {{"", 1}, {"k", 1000}, {"K", 1000}, {"M", 1000000}, {"G", 1000000000}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(suffix, table[i].name) == 0) return table[i].factor;
    return 0;
}

int64_t cli_count(struct argp_state *state, const char *option, const char *text, int64_t min, int64_t max) {
    char *end;
    errno = 0;
    long long digits = strtoll(text, &end, 10);
    int64_t factor = suffix_factor(end), value = 0;
    if (end == text || factor == 0)
        argp_error(state, "%s: \"%s\" is not a whole number (k, M and G may follow it)", option, text);
    else if (errno == ERANGE || __builtin_mul_overflow((int64_t)digits, factor, &value) || value < min || value > max)
        argp_error(state, "%s: %s is not between %lld and %lld", option, text, (long long)min, (long long)max);
    return value;
}

/* Edit distance (Levenshtein) of words shorter than 32 letters; longer ones are far from everything. */
static int edit_distance(const char *a, const char *b) {
    enum { LONGEST = 32 };
    int n_a = (int)strlen(a), n_b = (int)strlen(b), row[LONGEST];
    if (n_a >= LONGEST || n_b >= LONGEST) return LONGEST;
    for (int j = 0; j <= n_b; j++) row[j] = j;
    for (int i = 1; i <= n_a; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n_b; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n_b];
}

const char *cli_nearest(const char *word, const char *const *names, int n_names) {
    const char *nearest = NULL;
    int best = 3; /* two typing mistakes at most */
    for (int i = 0; i < n_names; i++) {
        int distance = edit_distance(word, names[i]);
        if (distance < best && distance < (int)strlen(names[i])) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

/* ---- progress ---- */

bool cli_color(void) {
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(STDERR_FILENO) && !(no_color && *no_color) && !(terminal && strcmp(terminal, "dumb") == 0);
}

static bool stderr_draws(void) {
    const char *terminal = getenv("TERM");
    return isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void cli_format_seconds(char *out, int64_t out_bytes, double seconds) {
    long long whole = isfinite(seconds) && seconds > 0 ? (long long)(seconds + 0.5) : 0;
    if (whole >= 3600)
        snprintf(out, (size_t)out_bytes, "%lldh%02lldm", whole / 3600, whole / 60 % 60);
    else if (whole >= 60)
        snprintf(out, (size_t)out_bytes, "%lldm%02llds", whole / 60, whole % 60);
    else
        snprintf(out, (size_t)out_bytes, "%llds", whole);
}

static void draw_bar(const char *what, double share, double seconds_left, const char *rate) {
    enum { WIDTH = 30 };
    char bar[WIDTH + 1], left[32];
    int filled = (int)(share * WIDTH);
    for (int i = 0; i < WIDTH; i++) bar[i] = i < filled ? '#' : '.';
    bar[WIDTH] = '\0';
    cli_format_seconds(left, sizeof left, seconds_left);
    fprintf(stderr, "\r\033[K%s [%s] %3.0f%%  %s left%s", what, bar, 100 * share, left, rate);
    if (share >= 1) fputc('\n', stderr);
    fflush(stderr);
}

static void print_progress_line(const char *what, double share, double seconds_left, const char *rate) {
    char left[32];
    cli_format_seconds(left, sizeof left, seconds_left);
    if (share >= 1)
        fprintf(stderr, "%s: done%s\n", what, rate);
    else
        fprintf(stderr, "%s: %.0f%%, %s left%s\n", what, 100 * share, left, rate);
}

/* ", 120 documents/s"; nothing before there is a rate. */
static void format_rate(char out[64], const char *unit, int64_t n, double seconds) {
    *out = 0;
    if (unit && n > 0 && seconds > 0) snprintf(out, 64, ", %.4g %s/s", (double)n / seconds, unit);
}

int cli_progress(void *user, const char *what, int64_t done, int64_t total) {
    static char current[64]; /* what is running: a new name starts a new clock */
    static double began, shown;
    static int64_t done_before; /* the clock started */
    char rate[64];
    double now = seconds_now();
    if (strncmp(current, what, sizeof current - 1) != 0 || done == 0) {
        snprintf(current, sizeof current, "%s", what);
        began = now;
        shown = now;
        done_before = done;
    }
    bool draws = stderr_draws(), finished = total > 0 && done >= total;
    double pause = draws ? 0.1 : 10;
    if (total <= 0 && now - shown >= pause) {
        fprintf(stderr, draws ? "\r\033[K%s: %lld" : "%s: %lld\n", what, (long long)done);
        shown = now;
    } else if (total > 0 && (finished || now - shown >= pause)) {
        double share = finished ? 1 : (double)done / (double)total;
        double left = share > 0 ? (now - began) * (1 - share) / share : 0;
        format_rate(rate, user, done - done_before, now - began);
        (draws ? draw_bar : print_progress_line)(what, share, left, rate);
        shown = now;
        if (finished) current[0] = '\0';
    }
    return cli_interrupted();
}

/* ---- threads and signals ---- */

void cli_set_threads(int64_t n_threads) {
    if (n_threads > 0) omp_set_num_threads((int)n_threads);
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    if (interrupted) {
        signal(number, SIG_DFL);
        raise(number);
    }
    interrupted = 1;
}

void cli_catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool cli_interrupted(void) { return interrupted != 0; }
