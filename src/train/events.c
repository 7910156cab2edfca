/* What stands in the lines of log.jsonl.  Every line has "event" and "step". */
#include "train/events.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "layers/layers.h"
#include "softpick/device.h"
#include "train/options.h"

enum { LOG_SCHEMA = 1 };

static json_t *describe_machine(const sp_model *model) {
    json_t *features = json_array();
    const char *name;
    uint32_t bit;
    for (int i = 0; sp_cpu_feature_at(i, &name, &bit); i++)
        if (sp_cpu_features() & bit) json_array_append_new(features, json_string(name));
    int32_t device = sp_model_device(model);
    sp_cuda_device gpu;
    bool on_gpu = device && sp_cuda_device_describe(device - 1, &gpu) == SP_OK;
    const char *cpu_limit = getenv("SP_CPU"), *attention = getenv("SP_ATTENTION");
    return json_pack("{ss so si si ss? ss? ss? ss?}", "cpu", sp_cpu_model(), "features", features, "processors",
                     sp_cpu_count(), "threads", omp_get_max_threads(), "gpu", on_gpu ? gpu.name : NULL, "matmul",
                     sp_model_matmul_name(device, sp_model_dtype(model)), "SP_CPU", cpu_limit, "SP_ATTENTION",
                     attention);
}

static sp_status describe_config(json_t **out, const sp_model_config *config) {
    *out = NULL;
    char *text;
    SP_TRY(sp_model_config_format(config, &text));
    sp_status status = sp_json_parse(out, text, (int64_t)strlen(text), "the model's configuration");
    free(text);
    return status;
}

sp_status sp_train_log_run(sp_train_log *log, const sp_train_parts *parts, int64_t step) {
    json_t *config, *options;
    SP_TRY(describe_config(&config, sp_model_config_of(parts->model)));
    sp_status status = sp_train_options_format(&options, parts->options);
    if (status != SP_OK) {
        json_decref(config);
        return status;
    }
    char utc[32];
    time_t now = time(NULL);
    strftime(utc, sizeof utc, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    sp_dtype dtype = sp_model_dtype(parts->model);
    return sp_train_log_add(log, json_pack("{ss sI si ss ss so ss sI so so so}", "event", "run", "step",
                                           (json_int_t)step, "schema", LOG_SCHEMA, "version", sp_version(), "time", utc,
                                           "machine", describe_machine(parts->model), "dtype", sp_dtype_name(dtype),
                                           "parameters", (json_int_t)sp_model_n_parameters(parts->model), "config",
                                           config, "options", options, "data", sp_train_data_format(parts->shards)));
}

sp_status sp_train_log_step(sp_train_log *log, const sp_train_step *step) {
    return sp_train_log_add(
        log, json_pack("{ss sI sI so so so so so sb}", "event", "step", "step", (json_int_t)step->step, "tokens",
                       (json_int_t)step->n_tokens, "loss", sp_json_number(step->loss), "learning_rate",
                       sp_json_number(step->learning_rate), "gradient_norm", sp_json_number(step->gradient_norm),
                       "seconds", sp_json_number(step->seconds), "tokens_per_second",
                       sp_json_number(step->tokens_per_second), "skipped", step->skipped));
}

sp_status sp_train_log_validation(sp_train_log *log, int64_t step, double loss, int64_t n_targets) {
    return sp_train_log_add(log, json_pack("{ss sI so sI}", "event", "validation", "step", (json_int_t)step, "loss",
                                           sp_json_number(loss), "targets", (json_int_t)n_targets));
}

sp_status sp_train_log_sample(sp_train_log *log, int64_t step, const char *text) {
    return sp_train_log_add(log, json_pack("{ss sI ss}", "event", "sample", "step", (json_int_t)step, "text", text));
}

sp_status sp_train_log_checkpoint(sp_train_log *log, int64_t step, const char *name) {
    return sp_train_log_add(log,
                            json_pack("{ss sI ss}", "event", "checkpoint", "step", (json_int_t)step, "folder", name));
}
