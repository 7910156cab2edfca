/* The tool's entry: the table of subcommands, help, version.  A new command is a file cmd_<name>.c and a row
 * here. */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "softpick/device.h"

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} command;

/* In the order in which a newcomer needs them. */
static const command commands[] = {
    {"study", cmd_study, "train twins on a text, measure them, compare them"},
    {"tokenize", cmd_tokenize, "turn text into a tokenizer and token shards"},
    {"train", cmd_train, "train a model on token shards"},
    {"measure", cmd_measure, "measure sinks, sparsity, silent heads and outliers of a model"},
    {"eval", cmd_eval, "ask a model the questions of lm-eval's tasks"},
    {"generate", cmd_generate, "continue a prompt with a model"},
    {"convert", cmd_convert, "turn a checkpoint into another kind of file"},
    {"report", cmd_report, "write one HTML page from the results of a study"},
    {"bench", cmd_bench, "time the library on this machine"},
    {"info", cmd_info, "show what this machine and this build can do"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *stream) {
    fputs("Usage: softpick COMMAND [OPTION...] [ARGUMENT...]\n"
          "Trains, measures and compares LLaMA-style models with softpick and softmax attention.\n\n",
          stream);
    for (int i = 0; i < N_COMMANDS; i++) fprintf(stream, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\n"
          "  softpick help COMMAND   options of a command (also: softpick COMMAND --help)\n"
          "  softpick --version      version, commit, compiler\n\n"
          "Results go to standard output, progress to standard error.\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a file is missing, damaged or of the wrong kind.\n",
          stream);
}

static int print_version(void) {
    printf("softpick %s (commit %s, %s, CUDA %s)\n", sp_version(), cli_build.commit, cli_build.compiler,
           sp_cuda_built() ? "yes" : "no");
    return CLI_DONE;
}

static const command *find_command(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static int unknown_command(const char *name) {
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++) names[i] = commands[i].name;
    const char *nearest = cli_nearest(name, names, N_COMMANDS);
    if (nearest)
        fprintf(stderr, "softpick: \"%s\" is not a command; did you mean \"%s\"?\n", name, nearest);
    else
        fprintf(stderr, "softpick: \"%s\" is not a command; see softpick --help\n", name);
    return CLI_USAGE;
}

static int run_command(const command *chosen, int argc, char **argv) {
    char title[64];
    snprintf(title, sizeof title, "softpick %s", chosen->name);
    argv[0] = title;
    return chosen->run(argc, argv);
}

static int help(int argc, char **argv) {
    if (argc < 2) {
        print_help(stdout);
        return CLI_DONE;
    }
    const command *chosen = find_command(argv[1]);
    if (!chosen) return unknown_command(argv[1]);
    char option[] = "--help";
    return run_command(chosen, 2, (char *[]){argv[1], option, NULL});
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) return help(1, argv);
    if (strcmp(argv[1], "help") == 0) return help(argc - 1, argv + 1);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) return print_version();
    const command *chosen = find_command(argv[1]);
    return chosen ? run_command(chosen, argc - 1, argv + 1) : unknown_command(argv[1]);
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_DFL); /* a reader that leaves (softpick ... | head) ends us without a message */
    argp_err_exit_status = CLI_USAGE;
    setenv("ARGP_HELP_FMT", "no-dup-args-note", 0); /* --out=FILE tells enough about -o FILE */
    int code = dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "standard output: %s\n", strerror(errno));
        return code == CLI_DONE ? CLI_FAILED : code;
    }
    return code;
}
