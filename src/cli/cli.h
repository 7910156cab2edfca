/* What the subcommands share.  Each is one function in its own file and one row of the table in main.c. */
#ifndef SP_CLI_CLI_H
#define SP_CLI_CLI_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

#include "softpick/status.h"

enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_BAD_FILE = 3 };

/* argv[0] is "softpick NAME".  Returns the exit code. */
int cmd_tokenize(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_measure(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_study(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_bench(int argc, char **argv);

/* Prints sp_last_message() as one line on stderr and returns the exit code that fits: CLI_BAD_FILE for SP_IO,
 * SP_BAD_FILE and SP_VERSION, CLI_USAGE for SP_BAD_ARGUMENT, CLI_FAILED otherwise. */
int cli_fail(sp_status status);

/* Runs argp: exits with CLI_USAGE on wrong usage (one line and a hint), with CLI_DONE after --help. */
void cli_parse(const struct argp *argp, int argc, char **argv, void *input);

/* Values of options; wrong ones end in argp_error with the option's name and the value.
 * Counts take suffixes k, M, G (powers of 1000). */
int64_t cli_count(struct argp_state *state, const char *option, const char *text, int64_t min, int64_t max);
double cli_number(struct argp_state *state, const char *option, const char *text, double min, double max);

/* The name among n_names that `word` was most likely meant to be, NULL when none is near. */
const char *cli_nearest(const char *word, const char *const *names, int n_names);

/* "12s", "3m05s", "2h07m". */
void cli_format_seconds(char *out, int64_t out_bytes, double seconds);
/* An sp_progress_function that draws a bar on a terminal and prints a line every ten seconds otherwise; user: NULL, or a
 * text that says what is counted, whose rate is shown then.  Non-zero after the first Ctrl-C. */
int cli_progress(void *user, const char *what, int64_t done, int64_t total);
/* True when stderr is a terminal and NO_COLOR and TERM=dumb do not say otherwise. */
bool cli_color(void);
/* Sets OpenMP's threads (0: leave them). */
void cli_set_threads(int64_t n_threads);
/* First Ctrl-C or SIGTERM makes this true; the second ends the process.  Call cli_catch_signals once before.
 */
void cli_catch_signals(void);
bool cli_interrupted(void);

/* How this program was built: written by CMake. */
extern const struct cli_build {
    const char *commit, *compiler, *type, *sanitizers; /* "" for none */
    struct cli_library {
        const char *name, *version; /* version "": not in this build */
    } libraries[16];                /* ends with a NULL name */
} cli_build;

#endif
