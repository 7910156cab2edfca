/* softpick info: what this machine and this build can do, and which attention variant a shape gets and why.
 * The facts are gathered in one JSON document; --json prints it, otherwise it is laid out as text. */
#include "cli/cli.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/placement.h"
#include "softpick/attention.h"
#include "softpick/device.h"

typedef struct info_options {
    int64_t B, T, H, Hkv, D; /* Hkv 0: as H */
    int32_t device;
    sp_dtype dtype;
    sp_normalizer normalizer;
    bool passes[SP_ATTENTION_PASS_COUNT]; /* none set: all */
    bool json;
} info_options;

enum {
    KEY_JSON = 256,
    KEY_B,
    KEY_T,
    KEY_HEADS,
    KEY_KV_HEADS,
    KEY_HEAD_WIDTH,
    KEY_DEVICE,
    KEY_DTYPE,
    KEY_ATTENTION,
    KEY_PASS
};

static const struct argp_option options[] = {
    {.doc = "The attention problem whose variants are listed:"},
    {"T", KEY_T, "N", 0, "tokens of a sequence, in decode those of the cache (2048)", 0},
    {"head-width", KEY_HEAD_WIDTH, "N", 0, "channels of a head (64)", 0},
    {"heads", KEY_HEADS, "N", 0, "query heads (8)", 0},
    {"kv-heads", KEY_KV_HEADS, "N", 0, "key/value heads (as many as query heads)", 0},
    {"batch", KEY_B, "N", 0, "sequences (1)", 0},
    {"device", KEY_DEVICE, "NAME", 0, "where it lies: " CLI_DEVICE_HELP " (cpu)", 0},
    {"dtype", KEY_DTYPE, "NAME", 0, "f32, bf16 or f16 (f32)", 0},
    {"attention", KEY_ATTENTION, "NAME", 0, "softpick, softmax, softmax_plus_one, softmax_sink or rectified (softpick)",
     0},
    {"pass", KEY_PASS, "NAME", 0, "forward, backward or decode; may be repeated (all)", 0},
    {.doc = "Output:"},
    {"json", KEY_JSON, NULL, 0, "one JSON document", 0},
    {0},
};

static sp_dtype parse_dtype(struct argp_state *state, const char *text) {
    static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16, SP_DTYPE_F16};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(text, sp_dtype_name(dtypes[i])) == 0) return dtypes[i];
    argp_error(state, "--dtype: \"%s\" is not f32, bf16 or f16", text);
    return SP_DTYPE_F32;
}

static void parse_pass(struct argp_state *state, info_options *chosen, const char *text) {
    for (int i = 0; i < SP_ATTENTION_PASS_COUNT; i++)
        if (strcmp(text, sp_attention_pass_name((sp_attention_pass)i)) == 0) {
            chosen->passes[i] = true;
            return;
        }
    argp_error(state, "--pass: \"%s\" is not forward, backward or decode", text);
}

static error_t parse_option(int key, char *text, struct argp_state *state) {
    info_options *chosen = state->input;
    switch (key) {
    case KEY_B: chosen->B = cli_count(state, "--batch", text, 1, 1 << 20); break;
    case KEY_T: chosen->T = cli_count(state, "--T", text, 1, 1 << 24); break;
    case KEY_HEADS: chosen->H = cli_count(state, "--heads", text, 1, 1 << 16); break;
    case KEY_KV_HEADS: chosen->Hkv = cli_count(state, "--kv-heads", text, 1, 1 << 16); break;
    case KEY_HEAD_WIDTH: chosen->D = cli_count(state, "--head-width", text, 1, 1 << 16); break;
    case KEY_DEVICE: chosen->device = cli_device(state, "--device", text); break;
    case KEY_DTYPE: chosen->dtype = parse_dtype(state, text); break;
    case KEY_ATTENTION:
        if (sp_normalizer_find(&chosen->normalizer, text) != SP_OK)
            argp_error(state, "--attention: %s", sp_last_message());
        break;
    case KEY_PASS: parse_pass(state, chosen, text); break;
    case KEY_JSON: chosen->json = true; break;
    case ARGP_KEY_END:
        if (chosen->Hkv == 0) chosen->Hkv = chosen->H;
        if (chosen->H % chosen->Hkv != 0)
            argp_error(state, "--heads: %lld is not a multiple of --kv-heads %lld", (long long)chosen->H,
                       (long long)chosen->Hkv);
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* ---- the facts ---- */

static json_t *describe_build(void) {
    json_t *libraries = json_object();
    for (const struct cli_library *library = cli_build.libraries; library->name; library++)
        json_object_set_new(libraries, library->name, *library->version ? json_string(library->version) : json_null());
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "commit", cli_build.commit, "compiler", cli_build.compiler, "type",
                     cli_build.type, "sanitizers", cli_build.sanitizers, "libraries", libraries);
}

static json_t *describe_cpu(void) {
    json_t *used = json_array(), *unused = json_array();
    const char *name, *limit = getenv("SP_CPU");
    uint32_t bit;
    for (int i = 0; sp_cpu_feature_at(i, &name, &bit); i++)
        json_array_append_new(sp_cpu_features() & bit ? used : unused, json_string(name));
    return json_pack("{s:s, s:o, s:o, s:s?, s:i, s:i}", "model", sp_cpu_model(), "features", used, "features_not_used",
                     unused, "SP_CPU", limit, "processors", sp_cpu_count(), "threads", omp_get_max_threads());
}

/* A GPU can be used if it can be opened and says how much of its memory is free. */
static json_t *describe_gpu(int index) {
    sp_cuda_device gpu;
    int64_t free_bytes = 0, total_bytes;
    if (sp_cuda_device_describe(index, &gpu) != SP_OK)
        return json_pack("{s:b, s:s}", "usable", false, "why_not", sp_last_message());
    bool usable = sp_device_free_bytes(1 + index, &free_bytes, &total_bytes) == SP_OK;
    json_t *available = usable ? json_integer(free_bytes) : json_null();
    return json_pack("{s:s, s:i, s:i, s:i, s:I, s:o, s:b, s:s?}", "name", gpu.name, "compute_major", gpu.compute_major,
                     "compute_minor", gpu.compute_minor, "multiprocessors", gpu.n_multiprocessors, "memory_bytes",
                     (json_int_t)gpu.memory_bytes, "memory_free_bytes", available, "usable", usable, "why_not",
                     usable ? NULL : sp_last_message());
}

static json_t *describe_cuda(void) {
    json_t *devices = json_array();
    sp_cuda_device gpu;
    int n = sp_cuda_device_count();
    bool none = n == 0 && sp_cuda_device_describe(0, &gpu) != SP_OK;
    for (int i = 0; i < n; i++) json_array_append_new(devices, describe_gpu(i));
    return json_pack("{s:b, s:s?, s:o}", "built", sp_cuda_built(), "why_none", none ? sp_last_message() : NULL,
                     "devices", devices);
}

/* A problem of that shape; in decode T tokens are in the cache and one query meets them.  No row looks at the numbers
 * when it is asked, so none are there. */
static sp_attention make_problem(const info_options *chosen, sp_attention_pass pass) {
    const int64_t q_shape[] = {chosen->B, pass == SP_ATTENTION_DECODE ? 1 : chosen->T, chosen->H, chosen->D};
    const int64_t k_shape[] = {chosen->B, chosen->T, chosen->Hkv, chosen->D};
    sp_attention problem;
    sp_attention_init(&problem);
    problem.q = problem.out = problem.dout = problem.dq = sp_tensor_view(NULL, chosen->dtype, 4, q_shape);
    problem.k = problem.v = problem.dk = problem.dv = sp_tensor_view(NULL, chosen->dtype, 4, k_shape);
    sp_tensor *tensors[] = {&problem.q,    &problem.k,  &problem.v,  &problem.out,
                            &problem.dout, &problem.dq, &problem.dk, &problem.dv};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) tensors[i]->device = chosen->device;
    problem.normalizer = chosen->normalizer;
    return problem;
}

static json_t *describe_pass(const info_options *chosen, sp_attention_pass pass) {
    sp_attention problem = make_problem(chosen, pass);
    json_t *rows = json_array();
    const char *name, *why, *first = NULL;
    for (int i = 0;; i++) {
        bool taken = sp_attention_variant(&problem, pass, i, &name, &why);
        if (!name) break;
        if (taken && !first) first = name;
        json_array_append_new(
            rows, json_pack("{s:s, s:b, s:s?}", "name", name, "accepts", taken, "why_not", taken ? NULL : why));
    }
    return json_pack("{s:s?, s:o}", "runs", first, "rows", rows);
}

static json_t *describe_attention(const info_options *chosen) {
    json_t *passes = json_object();
    bool all = true;
    for (int i = 0; i < SP_ATTENTION_PASS_COUNT; i++) all = all && !chosen->passes[i];
    for (int i = 0; i < SP_ATTENTION_PASS_COUNT; i++)
        if (all || chosen->passes[i])
            json_object_set_new(passes, sp_attention_pass_name((sp_attention_pass)i),
                                describe_pass(chosen, (sp_attention_pass)i));
    char device[32];
    cli_device_format(device, sizeof device, chosen->device);
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:s?, s:o}", "function",
                     sp_normalizer_name(chosen->normalizer), "device", device, "dtype", sp_dtype_name(chosen->dtype),
                     "B", (json_int_t)chosen->B, "T", (json_int_t)chosen->T, "H", (json_int_t)chosen->H, "Hkv",
                     (json_int_t)chosen->Hkv, "D", (json_int_t)chosen->D, "SP_ATTENTION", getenv("SP_ATTENTION"),
                     "passes", passes);
}

/* ---- as text ---- */

static const char *text_at(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long number_at(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static void print_list(const char *label, const json_t *words) {
    size_t i;
    json_t *word;
    printf("  %-12s", label);
    json_array_foreach(words, i, word) printf("%s%s", i ? " " : "", json_string_value(word));
    puts(json_array_size(words) ? "" : "none");
}

static void print_build(const json_t *build) {
    const char *name;
    json_t *version;
    printf("softpick %s (commit %s)\n", sp_version(), text_at(build, "commit"));
    printf("  %-12s%s, %s, sanitizers: %s\n", "build", text_at(build, "type"), text_at(build, "compiler"),
           *text_at(build, "sanitizers") ? text_at(build, "sanitizers") : "none");
    printf("  %-12s", "libraries");
    const char *between = "";
    json_object_foreach(json_object_get(build, "libraries"), name, version) {
        printf("%s%s %s", between, name, json_is_null(version) ? "(none)" : json_string_value(version));
        between = ", ";
    }
    puts("");
}

static void print_cpu(const json_t *cpu) {
    printf("\nCPU\n  %-12s%s\n", "model", text_at(cpu, "model"));
    print_list("features", json_object_get(cpu, "features"));
    print_list("not used", json_object_get(cpu, "features_not_used"));
    if (*text_at(cpu, "SP_CPU")) printf("  %-12s%s (nothing above is used)\n", "SP_CPU", text_at(cpu, "SP_CPU"));
    printf("  %-12s%lld, OpenMP threads: %lld\n", "processors", number_at(cpu, "processors"),
           number_at(cpu, "threads"));
}

static void print_cuda(const json_t *cuda) {
    const json_t *devices = json_object_get(cuda, "devices");
    size_t i;
    json_t *device;
    puts("\nGPUs");
    if (json_array_size(devices) == 0) printf("  none: %s\n", text_at(cuda, "why_none"));
    json_array_foreach(devices, i, device) {
        printf("  cuda:%zu  ", i);
        if (*text_at(device, "name"))
            printf("%s, compute capability %lld.%lld, %lld multiprocessors, ", text_at(device, "name"),
                   number_at(device, "compute_major"), number_at(device, "compute_minor"),
                   number_at(device, "multiprocessors"));
        if (json_is_true(json_object_get(device, "usable")))
            printf("%.1f of %.1f GiB free\n", (double)number_at(device, "memory_free_bytes") / 0x1p30,
                   (double)number_at(device, "memory_bytes") / 0x1p30);
        else
            printf("not usable: %s\n", text_at(device, "why_not"));
    }
}

static void print_attention(const json_t *attention) {
    const char *pass;
    json_t *choice, *row;
    size_t i;
    printf("\nAttention: %s, %s, %s, batch %lld, T %lld, heads %lld/%lld, head width %lld, causal\n",
           text_at(attention, "function"), text_at(attention, "device"), text_at(attention, "dtype"),
           number_at(attention, "B"), number_at(attention, "T"), number_at(attention, "H"), number_at(attention, "Hkv"),
           number_at(attention, "D"));
    json_object_foreach(json_object_get(attention, "passes"), pass, choice) {
        const char *runs = text_at(choice, "runs");
        printf("  %s\n", pass);
        json_array_foreach(json_object_get(choice, "rows"), i, row) {
            const char *name = text_at(row, "name");
            bool accepts = json_is_true(json_object_get(row, "accepts"));
            printf("    %c %-12s %s\n", strcmp(name, runs) == 0 ? '>' : ' ', name,
                   accepts ? strcmp(name, runs) == 0 ? "runs" : "would do" : text_at(row, "why_not"));
        }
    }
}

int cmd_info(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc = "Shows what this machine and this build can do, and which attention variant a shape gets and why.\v"
               "SP_CPU=scalar|avx2|avx512|avx512_bf16|amx takes away the CPU features "
               "above the one named; SP_ATTENTION=NAME forces an attention variant.\n\n"
               "Examples:\n"
               "  softpick info\n"
               "  softpick info --T 8192 --head-width 128 --dtype bf16 --pass forward\n"
               "  softpick info --device cuda --dtype bf16\n"
               "  softpick info --T 64k --heads 32 --kv-heads 8 --pass decode\n"
               "  SP_CPU=avx2 softpick info --json\n\n"
               "Exit status: 0 done, 2 wrong usage.",
    };
    info_options chosen = {.B = 1, .T = 2048, .H = 8, .D = 64, .dtype = SP_DTYPE_F32};
    cli_parse(&argp, argc, argv, &chosen);
    json_t *facts = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "schema", "softpick-info/1", "version", sp_version(),
                              "build", describe_build(), "cpu", describe_cpu(), "cuda", describe_cuda(), "attention",
                              describe_attention(&chosen));
    if (chosen.json) {
        json_dumpf(facts, stdout, JSON_INDENT(2));
        puts("");
    } else {
        print_build(json_object_get(facts, "build"));
        print_cpu(json_object_get(facts, "cpu"));
        print_cuda(json_object_get(facts, "cuda"));
        print_attention(json_object_get(facts, "attention"));
    }
    json_decref(facts);
    return CLI_DONE;
}
