/* A model as llama2.c's file: version 0 (f32) or 2 (codes of a byte in groups).  Its
 * programs know one kind of model: softmax, no biases, eps 1e-5, theta 10000; another is refused. */
#include "softpick/checkpoint.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/checkpoint_private.h"
#include "checkpoint/llama2c_model.h"

enum { GROUP_MAX = 64 };

typedef struct saving {
    const char *path;
    const sp_checkpoint_content *content;
    const json_t *config;
    sp_llama2c_shape shape;
    sp_file_writer file;
} saving;

/* ---- what its programs can run --------------------------------------------------------------------------------- */

static int64_t count_of(const saving *s, const char *key) {
    return json_integer_value(json_object_get(s->config, key));
}

static bool is_near(const json_t *value, double wanted) {
    return json_is_number(value) && fabs(json_number_value(value) - wanted) <= 1e-6 * wanted;
}

static bool is_off(const json_t *value) { return !value || json_is_null(value) || json_is_false(value); }

static sp_status check_config(const saving *s) {
    const char *type = json_string_value(json_object_get(s->config, "model_type"));
    const char *attention = json_string_value(json_object_get(s->config, "attention_function"));
    SP_REQUIRE(!attention || strcmp(attention, "softmax") == 0, SP_UNSUPPORTED,
               "%s: the model's attention is %s: llama2.c's programs would run it with softmax", s->path, attention);
    SP_REQUIRE(type && strcmp(type, "llama") == 0, SP_UNSUPPORTED,
               "%s: a model of type %s: llama2.c's programs run plain LLaMA alone", s->path, type ? type : "none");
    SP_REQUIRE(is_near(json_object_get(s->config, "rms_norm_eps"), 1e-5), SP_UNSUPPORTED,
               "%s: rms_norm_eps is %g: llama2.c's programs compute with 1e-5", s->path,
               json_number_value(json_object_get(s->config, "rms_norm_eps")));
    SP_REQUIRE(is_near(json_object_get(s->config, "rope_theta"), 10000), SP_UNSUPPORTED,
               "%s: rope_theta is %g: llama2.c's programs compute with 10000", s->path,
               json_number_value(json_object_get(s->config, "rope_theta")));
    static const char *const off[] = {"rope_scaling", "attention_bias", "mlp_bias", "qkv_bias", "sliding_window"};
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        SP_REQUIRE(is_off(json_object_get(s->config, off[i])), SP_UNSUPPORTED, "%s: %s: llama2.c's programs have none",
                   s->path, off[i]);
    return SP_OK;
}

static sp_status read_shape(saving *s, int version) {
    s->shape = (sp_llama2c_shape){
        .width = count_of(s, "hidden_size"),
        .ffn_width = count_of(s, "intermediate_size"),
        .n_layers = count_of(s, "num_hidden_layers"),
        .n_heads = count_of(s, "num_attention_heads"),
        .n_kv_heads = count_of(s, "num_key_value_heads"),
        .vocabulary = count_of(s, "vocab_size"),
        .max_positions = count_of(s, "max_position_embeddings"),
        .tied = json_is_true(json_object_get(s->config, "tie_word_embeddings")),
        .version = version,
        .group = GROUP_MAX,
    };
    int64_t D = count_of(s, "head_dim");
    SP_REQUIRE(D > 0 && D * s->shape.n_heads == s->shape.width, SP_UNSUPPORTED,
               "%s: heads of %" PRId64 " channels: llama2.c's programs need hidden_size / num_attention_heads", s->path,
               D);
    while (s->shape.width % s->shape.group != 0 || s->shape.ffn_width % s->shape.group != 0) s->shape.group /= 2;
    return SP_OK;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

static sp_status write_head(saving *s) {
    const sp_llama2c_shape *shape = &s->shape;
    int32_t sizes[SP_LLAMA2C_SIZES] = {
        (int32_t)shape->width,      (int32_t)shape->ffn_width,  (int32_t)shape->n_layers,     (int32_t)shape->n_heads,
        (int32_t)shape->n_kv_heads, (int32_t)shape->vocabulary, (int32_t)shape->max_positions};
    uint8_t head[SP_LLAMA2C_HEAD_BYTES] = {0};
    if (shape->version == 0) {
        if (!shape->tied) sizes[5] = -sizes[5];
        return sp_file_writer_add(&s->file, sizes, sizeof sizes);
    }
    memcpy(head, (int32_t[]){SP_LLAMA2C_MAGIC, shape->version}, 8);
    memcpy(head + 8, sizes, sizeof sizes);
    head[36] = shape->tied;
    memcpy(head + 37, &(int32_t){(int32_t)shape->group}, 4);
    return sp_file_writer_add(&s->file, head, sizeof head);
}

/* Cosines and sines of all positions, which run.c passes over. */
static sp_status write_angles(saving *s) {
    int64_t D = s->shape.width / s->shape.n_heads;
    for (int table = 0; table < 2; table++)
        for (int64_t position = 0; position < s->shape.max_positions; position++)
            for (int64_t i = 0; i < D / 2; i++) {
                double angle = (double)position * pow(10000, -2.0 * (double)i / (double)D);
                float value = (float)(table == 0 ? cos(angle) : sin(angle));
                SP_TRY(sp_file_writer_add(&s->file, &value, sizeof value));
            }
    return SP_OK;
}

/* Codes of groups, then their scales. */
static sp_status write_codes(saving *s, const float *numbers, int64_t n) {
    int64_t group = s->shape.group, n_groups = n / group;
    float *scales = malloc((size_t)(n_groups + 1) * sizeof *scales);
    SP_REQUIRE(scales, SP_OUT_OF_MEMORY, "%s: no memory", s->path);
    sp_status status = SP_OK;
    for (int64_t i = 0; i < n_groups; i++) {
        int8_t codes[GROUP_MAX];
        const float *from = numbers + i * group;
        float largest = 0;
        for (int64_t j = 0; j < group; j++) largest = fmaxf(largest, fabsf(from[j]));
        scales[i] = largest / 127;
        sp_codes_write(codes, from, group, scales[i] > 0 ? 1 / scales[i] : 0);
        SP_TRY_OR_DONE(sp_file_writer_add(&s->file, codes, group));
    }
    SP_TRY_OR_DONE(sp_file_writer_add(&s->file, scales, n_groups * (int64_t)sizeof *scales));
done:
    free(scales);
    return status;
}

static sp_status find_tensor(const float **out, const saving *s, const char *name, int64_t n) {
    *out = NULL;
    for (int64_t i = 0; i < s->content->n_tensors; i++) {
        const sp_named_tensor *named = &s->content->tensors[i];
        if (strcmp(named->name, name) != 0) continue;
        SP_REQUIRE(named->tensor.dtype == SP_DTYPE_F32 && sp_tensor_count(&named->tensor) == n, SP_BAD_ARGUMENT,
                   "%s: tensor %s is not %" PRId64 " numbers of f32", s->path, name, n);
        *out = named->tensor.data;
    }
    SP_REQUIRE(*out, SP_BAD_ARGUMENT, "%s: tensor %s is missing", s->path, name);
    return SP_OK;
}

static sp_status write_tensor(saving *s, const sp_llama2c_part *part, int64_t layer) {
    char name[128];
    const float *numbers;
    int64_t n = sp_llama2c_part_count(part);
    snprintf(name, sizeof name, "model.layers.%" PRId64 ".%s", layer, part->name);
    SP_TRY(find_tensor(&numbers, s, part->in_layer ? name : part->name, n));
    float *ordered = NULL;
    if (part->heads) {
        int64_t D = part->rows / part->heads;
        SP_TRY(sp_allocate((void **)&ordered, n * (int64_t)sizeof *ordered, name));
        for (int64_t row = 0; row < part->rows; row++)
            memcpy(ordered + row * part->columns, numbers + sp_row_of_halves(row, D) * part->columns,
                   (size_t)part->columns * sizeof *ordered);
        numbers = ordered;
    }
    sp_status status = s->shape.version == 2 && !part->is_norm
                           ? write_codes(s, numbers, n)
                           : sp_file_writer_add(&s->file, numbers, n * (int64_t)sizeof *numbers);
    free(ordered);
    return status;
}

static sp_status write_parts(saving *s) {
    sp_llama2c_part parts[SP_LLAMA2C_PARTS];
    int n = sp_llama2c_list_parts(parts, &s->shape);
    SP_TRY(write_head(s));
    for (int i = 0; i < n; i++) {
        if (!parts[i].name) { /* both tables at once */
            SP_TRY(write_angles(s));
            i++;
            continue;
        }
        for (int64_t layer = 0; layer < (parts[i].in_layer ? s->shape.n_layers : 1); layer++)
            SP_TRY(write_tensor(s, &parts[i], layer));
    }
    return sp_file_writer_finish(&s->file);
}

sp_status sp_checkpoint_write_llama2c(const char *path, const sp_checkpoint_content *content, const char *format) {
    saving s = {.path = path, .content = content};
    json_t *config;
    bool codes = strcmp(format, "q8_0") == 0;
    SP_REQUIRE(codes || strcmp(format, "f32") == 0, SP_BAD_ARGUMENT,
               "%s: \"%.60s\" is no format of llama2.c's models: f32 and q8_0 are", path, format);
    SP_REQUIRE(content->replace || !sp_file_exists(path), SP_BAD_ARGUMENT, "%s: exists", path);
    SP_TRY(sp_json_parse(&config, content->config, (int64_t)strlen(content->config), path));
    s.config = config;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(check_config(&s));
    SP_TRY_OR_DONE(read_shape(&s, codes ? 2 : 0));
    SP_TRY_OR_DONE(sp_file_writer_open(&s.file, path));
    SP_TRY_OR_DONE(write_parts(&s));
done:
    sp_file_writer_abandon(&s.file);
    json_decref(config);
    return status;
}
