/* softpick report: one HTML page from the results of a study. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "softpick/report.h"

typedef struct report_arguments {
    const char *results, *out;
} report_arguments;

static const struct argp_option options[] = {
    {"out", 'o', "FILE", 0, "the page to write (default: report.html beside the results)", 0}, {0}};

static error_t parse_option(int key, char *value, struct argp_state *state) {
    report_arguments *arguments = state->input;
    switch (key) {
    case 'o': arguments->out = value; return 0;
    case ARGP_KEY_ARG:
        if (arguments->results) argp_error(state, "\"%s\": one results file is enough", value);
        arguments->results = value;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "which results.json?"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse_option,
    .args_doc = "RESULTS.json|DIR",
    .doc =
        "Writes one HTML page from the results of a study, and prints its path. The page needs no network and no other "
        "file.\v"
        "DIR is the folder of a study: its results.json is read, and report.html is written there.\n\n"
        "Examples:\n"
        "  softpick report demo/\n"
        "  softpick report demo/results.json --out page.html\n\n"
        "Exit status: 0 done, 1 failed, 2 wrong usage, 3 the results are missing, damaged or of another kind.",
};

/* "DIR/results.json" to "DIR/report.html". */
static sp_status default_page(char *out, int64_t out_bytes, const char *results) {
    char folder[4096];
    const char *slash = strrchr(results, '/');
    int n = slash ? (int)(slash - results) + 1 : 0;
    SP_REQUIRE(n < (int)sizeof folder, SP_IO, "%s: the path is too long", results);
    snprintf(folder, sizeof folder, "%.*s", n, results);
    return sp_path_join(out, out_bytes, slash ? folder : ".", "report.html");
}

static sp_status write_report(const report_arguments *arguments) {
    char results[4096], page[4096];
    if (sp_folder_exists(arguments->results))
        SP_TRY(sp_path_join(results, sizeof results, arguments->results, "results.json"));
    else
        snprintf(results, sizeof results, "%s", arguments->results);
    if (arguments->out)
        snprintf(page, sizeof page, "%s", arguments->out);
    else
        SP_TRY(default_page(page, sizeof page, results));
    SP_TRY(sp_report_write(page, results));
    printf("%s\n", page);
    return SP_OK;
}

int cmd_report(int argc, char **argv) {
    report_arguments arguments = {0};
    cli_parse(&argp, argc, argv, &arguments);
    sp_status status = write_report(&arguments);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
