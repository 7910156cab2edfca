/* softpick bench: timings on this machine, each a row of the table below. */
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/cli.h"

typedef struct bench {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} bench;

static const bench benches[] = {
    {"attention", bench_attention, "forward, backward and decode of attention, by every variant"},
    {"train", bench_train, "training steps of a model"},
    {"capture", bench_capture, "not a timing: writes a model's q, k and v, for bench attention"},
};
enum { N_BENCHES = sizeof benches / sizeof *benches };

static void print_help(FILE *stream) {
    fputs("Usage: softpick bench NAME [OPTION...]\nTimes the library on this machine.\n\n", stream);
    for (int i = 0; i < N_BENCHES; i++) fprintf(stream, "  %-10s %s\n", benches[i].name, benches[i].help);
    fputs("\nsoftpick bench NAME --help shows the options.\n\n"
          "Examples:\n"
          "  softpick bench attention --dtype bf16 --head-dim 128 --length 4096\n"
          "  softpick bench attention --device cuda --attention softpick,softmax\n"
          "  softpick bench train --dtype f32 --threads 2\n"
          "  softpick bench train --attention softmax --length 2048 --batch 1 --json\n\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage.\n",
          stream);
}

int cmd_bench(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0) {
        print_help(stdout);
        return CLI_DONE;
    }
    char title[64];
    for (int i = 0; i < N_BENCHES; i++) {
        if (strcmp(argv[1], benches[i].name) != 0) continue;
        snprintf(title, sizeof title, "softpick bench %s", benches[i].name);
        argv[1] = title;
        return benches[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr,
            argv[1][0] == '-' ? "softpick bench: unrecognized option '%s'; see softpick bench --help\n"
                              : "softpick bench: \"%s\" is not a benchmark; see softpick bench --help\n",
            argv[1]);
    return CLI_USAGE;
}
