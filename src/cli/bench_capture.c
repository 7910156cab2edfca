/* softpick bench capture: q, k and v of one layer of a model on held-out text, as a file for --pattern captured=FILE. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/open_model.h"
#include "cli/placement.h"
#include "softpick/checkpoint.h"
#include "softpick/model.h"

typedef struct capture_arguments {
    const char *model, *data, *out;
    int64_t layer, B, T, n_threads;
    sp_dtype dtype;
} capture_arguments;

/* ---- the layer's tensors ---------------------------------------------------------------------------------------- */

typedef struct capture {
    int64_t layer;
    sp_named_tensor tensors[3]; /* q k v, contiguous; data NULL before */
} capture;

static sp_status copy_tensor(sp_named_tensor *to, const char *name, const sp_tensor *from) {
    const int64_t H = from->shape[2], row_bytes = from->shape[3] * sp_dtype_bytes(from->dtype);
    to->name = name;
    to->tensor = sp_tensor_view(NULL, from->dtype, 4, from->shape);
    SP_TRY(sp_allocate(&to->tensor.data, sp_tensor_count(from) * sp_dtype_bytes(from->dtype), "a captured tensor"));
    for (int64_t i = 0; i < from->shape[0] * from->shape[1] * H; i++) {
        int64_t b = i / (from->shape[1] * H), t = i / H % from->shape[1], h = i % H;
        memcpy(sp_problem_row(&to->tensor, b, t, h), sp_problem_row(from, b, t, h), (size_t)row_bytes);
    }
    return SP_OK;
}

static sp_status keep_layer(void *user, int64_t layer, const sp_attention *problem) {
    capture *c = user;
    if (layer != c->layer) return SP_OK;
    SP_TRY(copy_tensor(&c->tensors[0], "q", &problem->q));
    SP_TRY(copy_tensor(&c->tensors[1], "k", &problem->k));
    return copy_tensor(&c->tensors[2], "v", &problem->v);
}

/* One pass over the first B sequences of the validation split. */
static sp_status observe(capture *c, sp_model *model, const capture_arguments *arguments) {
    const sp_observer observer = {.user = c, .attention = keep_layer};
    sp_status status = SP_OK;
    sp_shards *shards = NULL;
    sp_loader *loader = NULL;
    sp_batch batch;
    sp_loader_options cut = sp_loader_options_default();
    cut.B = arguments->B, cut.T = arguments->T;
    cut.bos = sp_model_config_of(model)->bos;
    cut.in_order = true;
    SP_TRY_OR_DONE(sp_shards_open(&shards, arguments->data, "validation"));
    SP_TRY_OR_DONE(sp_loader_new(&loader, shards, &cut));
    SP_TRY_OR_DONE(sp_loader_batch(loader, 0, &batch));
    SP_REQUIRE_OR_DONE(batch.B == arguments->B, SP_BAD_ARGUMENT,
                       "--batch: %s has %" PRId64 " sequences of %" PRId64 " tokens", arguments->data, batch.B,
                       arguments->T);
    status = sp_model_observe(model, &batch, &observer);
done:
    sp_loader_free(loader);
    sp_shards_close(shards);
    return status;
}

static sp_status capture_layer(const capture_arguments *arguments) {
    sp_status status = SP_OK;
    sp_model *model = NULL;
    capture c = {.layer = arguments->layer};
    SP_TRY_OR_DONE(cli_open_model(&model, arguments->model, 0, arguments->dtype, NULL));
    const sp_model_config *config = sp_model_config_of(model);
    SP_REQUIRE_OR_DONE(arguments->layer < config->n_layers, SP_BAD_ARGUMENT,
                       "--layer: %" PRId64 ", the model has layers 0 to %" PRId64, arguments->layer,
                       config->n_layers - 1);
    SP_REQUIRE_OR_DONE(arguments->T <= config->max_positions, SP_BAD_ARGUMENT,
                       "--length: %" PRId64 " tokens, the model has %" PRId64 " positions", arguments->T,
                       config->max_positions);
    SP_TRY_OR_DONE(observe(&c, model, arguments));
    SP_TRY_OR_DONE(sp_safetensors_write(arguments->out, c.tensors, 3));
    printf("%s: layer %" PRId64 ", q (%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "), %" PRId64
           " key heads, %s, %s\n",
           arguments->out, arguments->layer, arguments->B, arguments->T, config->n_heads, config->head_width,
           config->n_kv_heads, sp_dtype_name(arguments->dtype), sp_normalizer_name(config->attention_function));
done:
    for (int i = 0; i < 3; i++) free(c.tensors[i].tensor.data);
    sp_model_free(model);
    return status;
}

/* ---- the command line ------------------------------------------------------------------------------------------- */

enum { KEY_DATA = 1000, KEY_LAYER, KEY_BATCH, KEY_LENGTH, KEY_DTYPE, KEY_THREADS, KEY_OUT };

static const struct argp_option options[] = {
    {"data", KEY_DATA, "DIR", 0, "token shards; the first sequences of their validation split are read", 1},
    {"layer", KEY_LAYER, "N", 0, "the layer, from 0 (default 0)", 1},
    {"batch", KEY_BATCH, "B", 0, "sequences (default 1)", 1},
    {"length", KEY_LENGTH, "T", 0, "tokens of each (default 2048)", 1},
    {"dtype", KEY_DTYPE, "NAME", 0, "f32 or bf16 (default): numbers of the forward pass, and of the file", 1},
    {"threads", KEY_THREADS, "N", 0, "0: as many as processors (default 0)", 1},
    {"out", KEY_OUT, "FILE", 0, "the file that is written", 1},
    {0},
};

static error_t parse_option(int key, char *text, struct argp_state *state) {
    capture_arguments *a = state->input;
    switch (key) {
    case KEY_DATA: a->data = text; break;
    case KEY_LAYER: a->layer = cli_count(state, "--layer", text, 0, 1 << 16); break;
    case KEY_BATCH: a->B = cli_count(state, "--batch", text, 1, 1 << 16); break;
    case KEY_LENGTH: a->T = cli_count(state, "--length", text, 2, 1 << 24); break;
    case KEY_DTYPE: a->dtype = cli_dtype(state, "--dtype", text); break;
    case KEY_THREADS: a->n_threads = cli_count(state, "--threads", text, 0, 4096); break;
    case KEY_OUT: a->out = text; break;
    case ARGP_KEY_ARG:
        if (a->model) argp_error(state, "\"%s\": one model at a time", text);
        a->model = text;
        break;
    case ARGP_KEY_END:
        if (!a->model) argp_error(state, "which model? give its folder");
        if (!a->data) argp_error(state, "--data is missing: the folder of token shards");
        if (!a->out) argp_error(state, "--out is missing: the file to be written");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int bench_capture(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .args_doc = "MODEL",
        .doc =
            "Writes q, k and v of one layer of a model as attention gets them, for softpick bench attention --pattern "
            "captured=FILE.  MODEL is a checkpoint folder, or a run folder, of which the newest checkpoint is taken.\v"
            "The file is safetensors: q (B,T,H,D), k and v (B,T,Hkv,D), after RoPE.\n\n"
            "Example:\n"
            "  softpick bench capture runs/softpick --data tokens --layer 5 --batch 4 --out layer5.safetensors\n\n"
            "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a file is missing, damaged or of the wrong kind.",
    };
    capture_arguments a = {.B = 1, .T = 2048, .dtype = SP_DTYPE_BF16};
    cli_parse(&argp, argc, argv, &a);
    cli_set_threads(a.n_threads);
    cli_catch_signals();
    sp_status status = capture_layer(&a);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
