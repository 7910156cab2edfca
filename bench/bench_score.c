/* Speed of scores of token sequences (src/evaluate/score.h) on requests from a file that bench/peers/score_requests.py made.
 * Usage: bench_score REQUESTS MODEL DEVICE DTYPE [BATCH_TOKENS [NORMALIZER [PROFILE]]]
 *   MODEL       340m, 12m (random weights), or a checkpoint folder; tokens count modulo its vocabulary
 *   DEVICE      cpu or cuda;  DTYPE f32 or bf16;  BATCH_TOKENS 0: chosen by the device
 *   NORMALIZER  of the random models (softpick);  PROFILE 1: where the time goes, which on a GPU costs some
 * Without and with sharing of beginnings, each measured once after a batch that is not: tokens a second that are read to
 * score the requests, and of those that passed through the model; the share of 2 operations for each parameter and
 * token that passed, at PEAK operations a second (in the environment; on a GPU 989e12). */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "evaluate/score.h"

static void must(sp_status status) {
    if (status == SP_OK) return;
    fprintf(stderr, "bench_score: %s\n", sp_last_message());
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static sp_model *open_model(const char *name, const char *normalizer, const sp_model_options *options) {
    sp_model_config config = sp_model_config_default();
    sp_model *model;
    if (strcmp(name, "340m") != 0 && strcmp(name, "12m") != 0) {
        must(sp_model_open(&model, name, options));
        return model;
    }
    must(sp_normalizer_find(&config.attention_function, normalizer));
    if (strcmp(name, "12m") == 0) {
        config.vocabulary = 8192;
        config.width = 256;
        config.n_layers = 8;
        config.n_heads = config.n_kv_heads = 4;
        config.head_width = 64;
        config.ffn_width = 768;
    }
    must(sp_model_new(&model, &config, options));
    return model;
}

/* The requests; their tokens stay in `file`.  Of long ones the end counts. */
static sp_score_item *read_items(int32_t *file, int64_t n_numbers, const sp_model_config *config, int64_t *n_items) {
    sp_score_item *items;
    *n_items = n_numbers > 0 ? file[0] : 0;
    must(sp_allocate((void **)&items, *n_items * (int64_t)sizeof *items, "requests"));
    int64_t at = 1;
    for (int64_t i = 0; i < *n_items; i++) {
        if (at + 2 > n_numbers || at + 2 + file[at] > n_numbers)
            must(sp_fail(SP_BAD_FILE, "the requests are cut short"));
        items[i] = (sp_score_item){.tokens = file + at + 2, .n_tokens = file[at], .n_scored = file[at + 1]};
        for (int64_t j = at + 2; j < at + 2 + items[i].n_tokens; j++) file[j] %= (int32_t)config->vocabulary;
        at += 2 + items[i].n_tokens;
        int64_t excess = items[i].n_tokens - 1 - config->max_positions;
        if (excess > 0) items[i].tokens += excess, items[i].n_tokens -= excess;
    }
    return items;
}

static void print_profile(sp_model *model, double seconds) {
    sp_model_profile p = sp_model_profile_read(model, true);
    double known = p.matmul + p.attention + p.norm + p.rope + p.swiglu + p.embedding + p.loss + p.other;
    if (known == 0) return;
    printf("  products %.1f%%, attention %.1f%%, gathering %.1f%%, norms %.1f%%, rope %.1f%%, swiglu %.1f%%, "
           "embedding %.1f%%, predictions %.1f%%, rest %.1f%%\n",
           100 * p.matmul / seconds, 100 * p.attention / seconds, 100 * p.other / seconds, 100 * p.norm / seconds,
           100 * p.rope / seconds, 100 * p.swiglu / seconds, 100 * p.embedding / seconds, 100 * p.loss / seconds,
           100 * (1 - known / seconds));
}

static void measure(sp_model *model, sp_score_item *items, int64_t n_items, int64_t batch_tokens, bool share) {
    sp_score_counts counts = {0};
    sp_score_options options = sp_score_options_default();
    const char *text = getenv("PEAK");
    double peak = text ? strtod(text, NULL) : sp_model_device(model) ? 989e12 : 0, sum = 0;
    options.batch_tokens = batch_tokens;
    options.share_prefixes = share;
    must(sp_score(model, items, n_items < 2000 ? n_items : 2000, &options));
    (void)sp_model_profile_read(model, true);
    options.counts = &counts;
    double begin = now();
    must(sp_score(model, items, n_items, &options));
    double seconds = now() - begin;
    for (int64_t i = 0; i < n_items; i++) sum += items[i].sum;
    printf("%-7s %8.3f s: %.0f requests/s, %.0f tokens/s read, %.0f computed (1 of %.2f), %" PRId64
           " batches, mean log p %.6f",
           share ? "sharing" : "plain", seconds, (double)n_items / seconds, (double)counts.n_read / seconds,
           (double)counts.n_computed / seconds, (double)counts.n_read / (double)counts.n_computed, counts.n_batches,
           sum / (double)counts.n_scored);
    double floor = 2.0 * (double)sp_model_n_parameters(model) * (double)counts.n_computed / (peak > 0 ? peak : 1);
    if (peak > 0) printf(", %.1f%% of %.3g operations/s", 100 * floor / seconds, peak);
    printf("\n");
    print_profile(model, seconds);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "bench_score: REQUESTS MODEL DEVICE DTYPE [BATCH_TOKENS [NORMALIZER [PROFILE]]]\n");
        return 2;
    }
    sp_model_options options = sp_model_options_default();
    options.device = strcmp(argv[3], "cuda") == 0;
    options.dtype = strcmp(argv[4], "bf16") == 0 ? SP_DTYPE_BF16 : SP_DTYPE_F32;
    FILE *file = fopen(argv[1], "rb");
    int64_t n_items, size = 0;
    int32_t *numbers;
    if (!file || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 4 || fseek(file, 0, SEEK_SET) != 0)
        must(sp_fail(SP_BAD_FILE, "%s: cannot be read", argv[1]));
    must(sp_allocate((void **)&numbers, size, "requests"));
    if (fread(numbers, 1, (size_t)size, file) != (size_t)size)
        must(sp_fail(SP_BAD_FILE, "%s: cannot be read", argv[1]));
    fclose(file);
    sp_model *model = open_model(argv[2], argc > 6 ? argv[6] : "softpick", &options);
    sp_score_item *items = read_items(numbers, size / 4, sp_model_config_of(model), &n_items);
    printf("%s %s %s, %s, %" PRId64 " requests\n", argv[2], argv[3], argv[4],
           sp_normalizer_name(sp_model_config_of(model)->attention_function), n_items);
    sp_model_profile_enable(model, argc > 7 && strcmp(argv[7], "1") == 0);
    for (int share = 0; share < 2; share++)
        measure(model, items, n_items, argc > 5 ? strtoll(argv[5], NULL, 10) : 0, share);
    sp_model_free(model);
    free(items);
    free(numbers);
    return 0;
}
