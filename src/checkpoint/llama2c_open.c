/* A model of llama2.c as a checkpoint: LLaMA's names and config, rotary pairs in halves, codes as f32. */
#include "checkpoint/llama2c_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/checkpoint_private.h"

/* ---- the head of the file -------------------------------------------------------------------------------------- */

static int32_t number_at(const sp_file_map *map, int64_t at) {
    int32_t number;
    memcpy(&number, map->data + at, sizeof number);
    return number;
}

static sp_status check_shape(const sp_llama2c_shape *s, const char *path) {
    const struct {
        const char *name;
        int64_t value, max;
    } sizes[] = {{"dim", s->width, 1 << 20},
                 {"hidden_dim", s->ffn_width, 1 << 22},
                 {"n_layers", s->n_layers, 1 << 16},
                 {"n_heads", s->n_heads, 1 << 16},
                 {"n_kv_heads", s->n_kv_heads, 1 << 16},
                 {"vocab_size", s->vocabulary, 1 << 24},
                 {"max_seq_len", s->max_positions, 1 << 26}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        SP_REQUIRE(sizes[i].value >= 1 && sizes[i].value <= sizes[i].max, SP_BAD_FILE,
                   "%s: not a model of llama2.c (nor GGUF): %s would be %" PRId64, path, sizes[i].name, sizes[i].value);
    SP_REQUIRE(s->width % s->n_heads == 0 && s->width / s->n_heads % 2 == 0 && s->n_heads % s->n_kv_heads == 0,
               SP_BAD_FILE,
               "%s: not a model of llama2.c (nor GGUF): dim %" PRId64 ", n_heads %" PRId64 " and n_kv_heads %" PRId64
               " do not divide each other",
               path, s->width, s->n_heads, s->n_kv_heads);
    return SP_OK;
}

static sp_status read_head(sp_llama2c_shape *s, int64_t *begin, const sp_file_map *map, const char *path) {
    SP_REQUIRE(map->n_bytes >= SP_LLAMA2C_OLD_HEAD_BYTES, SP_BAD_FILE,
               "%s: %" PRId64 " bytes: too short for a model of llama2.c", path, map->n_bytes);
    bool has_version = number_at(map, 0) == SP_LLAMA2C_MAGIC;
    SP_REQUIRE(!has_version || map->n_bytes >= SP_LLAMA2C_HEAD_BYTES, SP_BAD_FILE,
               "%s: %" PRId64 " bytes: too short for a model of llama2.c", path, map->n_bytes);
    *begin = has_version ? SP_LLAMA2C_HEAD_BYTES : SP_LLAMA2C_OLD_HEAD_BYTES;
    *s = (sp_llama2c_shape){.version = has_version ? number_at(map, 4) : 0};
    SP_REQUIRE(!has_version || s->version == 1 || s->version == 2, SP_VERSION,
               "%s: version %d of llama2.c's models: 0, 1 and 2 are supported", path, s->version);
    int64_t *const sizes[SP_LLAMA2C_SIZES] = {&s->width,      &s->ffn_width,  &s->n_layers,     &s->n_heads,
                                              &s->n_kv_heads, &s->vocabulary, &s->max_positions};
    for (int i = 0; i < SP_LLAMA2C_SIZES; i++) *sizes[i] = number_at(map, (has_version ? 8 : 0) + 4 * i);
    s->tied = has_version ? map->data[36] != 0 : s->vocabulary > 0;
    if (!has_version && s->vocabulary < 0) s->vocabulary = -s->vocabulary;
    s->group = s->version == 2 ? number_at(map, 37) : 1;
    SP_REQUIRE(s->group >= 1, SP_BAD_FILE, "%s: a group of %" PRId64 " numbers", path, s->group);
    return check_shape(s, path);
}

/* The file must be as long as its parts. */
static sp_status check_length(const sp_llama2c_shape *s, int64_t begin, const sp_file_map *map, const char *path) {
    sp_llama2c_part parts[SP_LLAMA2C_PARTS];
    int n = sp_llama2c_list_parts(parts, s);
    int64_t total = begin;
    for (int i = 0; i < n; i++) {
        int64_t n_bytes = 0;
        SP_REQUIRE(sp_llama2c_part_bytes(&n_bytes, &parts[i], s), SP_BAD_FILE,
                   "%s: tensor %s is not whole groups of %" PRId64 " numbers, or too large", path, parts[i].name,
                   s->group);
        SP_REQUIRE(sp_multiply_sizes(n_bytes, parts[i].in_layer ? s->n_layers : 1, &n_bytes) &&
                       sp_add_sizes(total, n_bytes, &total),
                   SP_BAD_FILE, "%s: its sizes are out of range", path);
    }
    SP_REQUIRE(total == map->n_bytes, SP_BAD_FILE,
               "%s: a llama2.c model of these sizes has %" PRId64 " bytes, the file %" PRId64, path, total,
               map->n_bytes);
    return SP_OK;
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

/* Codes and scales as f32, rows still in the order of the file; caller frees. */
static sp_status read_codes(float **out, const uint8_t *data, const sp_llama2c_part *part, int64_t group) {
    int64_t n = sp_llama2c_part_count(part);
    SP_TRY(sp_allocate((void **)out, n * (int64_t)sizeof **out, part->name));
    const uint8_t *scales = data + n;
    for (int64_t i = 0; i < n; i++) {
        float scale;
        memcpy(&scale, scales + i / group * (int64_t)sizeof scale, sizeof scale);
        (*out)[i] = (float)(int8_t)data[i] * scale;
    }
    return SP_OK;
}

static sp_status add_tensor(sp_checkpoint *checkpoint, const sp_llama2c_part *part, const sp_llama2c_shape *s,
                            int64_t layer, const uint8_t *data) {
    char name[128];
    snprintf(name, sizeof name, "model.layers.%" PRId64 ".%s", layer, part->name);
    sp_stored_rows rows = {
        .name = part->in_layer ? name : part->name,
        .format = sp_block_format_of(SP_DTYPE_F32),
        .data = data,
        .n_dims = part->rows ? 2 : 1,
        .shape = {part->rows ? part->rows : part->columns, part->columns},
        .heads = part->heads,
    };
    if (s->version < 2 || part->is_norm) return sp_checkpoint_add_rows(checkpoint, &rows);
    float *numbers;
    SP_TRY(read_codes(&numbers, data, part, s->group));
    rows.data = (const uint8_t *)numbers;
    if (part->heads == 0) {
        sp_tensor tensor = sp_tensor_view(numbers, SP_DTYPE_F32, rows.n_dims, rows.shape);
        return sp_checkpoint_add(checkpoint, rows.name, &tensor, numbers);
    }
    sp_status status = sp_checkpoint_add_rows(checkpoint, &rows);
    free(numbers);
    return status;
}

static sp_status add_tensors(sp_checkpoint *checkpoint, const sp_llama2c_shape *s, const uint8_t *data) {
    sp_llama2c_part parts[SP_LLAMA2C_PARTS];
    int n = sp_llama2c_list_parts(parts, s);
    SP_TRY(sp_checkpoint_reserve(checkpoint, SP_LLAMA2C_PARTS * s->n_layers));
    for (int i = 0; i < n; i++) {
        int64_t n_bytes = 0;
        sp_llama2c_part_bytes(&n_bytes, &parts[i], s);
        for (int64_t layer = 0; layer < (parts[i].in_layer ? s->n_layers : 1); layer++, data += n_bytes)
            if (parts[i].name) SP_TRY(add_tensor(checkpoint, &parts[i], s, layer, data));
    }
    return SP_OK;
}

static sp_status write_config(char **text, const sp_llama2c_shape *s) {
    json_t *config =
        json_pack("{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:f, s:f, s:i, s:[i,i], s:s}", "architectures",
                  "LlamaForCausalLM", "model_type", "llama", "hidden_size", (json_int_t)s->width, "intermediate_size",
                  (json_int_t)s->ffn_width, "num_hidden_layers", (json_int_t)s->n_layers, "num_attention_heads",
                  (json_int_t)s->n_heads, "num_key_value_heads", (json_int_t)s->n_kv_heads, "vocab_size",
                  (json_int_t)s->vocabulary, "max_position_embeddings", (json_int_t)s->max_positions,
                  "tie_word_embeddings", (int)s->tied, "rms_norm_eps", 1e-5, "rope_theta", 10000.0, "bos_token_id", 1,
                  "eos_token_id", 2, 1, "hidden_act", "silu");
    sp_status status = config ? sp_json_format(text, config, 0) : sp_fail(SP_OUT_OF_MEMORY, "no memory for a config");
    json_decref(config);
    return status;
}

sp_status sp_checkpoint_parse_llama2c(sp_checkpoint *checkpoint, const sp_file_map *bytes) {
    sp_llama2c_shape shape;
    int64_t begin = 0;
    const char *path = checkpoint->folder;
    SP_TRY(read_head(&shape, &begin, bytes, path));
    SP_TRY(check_length(&shape, begin, bytes, path));
    SP_TRY(add_tensors(checkpoint, &shape, bytes->data + begin));
    return write_config(&checkpoint->config, &shape);
}

sp_status sp_checkpoint_read_llama2c(sp_checkpoint *checkpoint) {
    SP_TRY(sp_file_map_open(&checkpoint->map, checkpoint->folder));
    return sp_checkpoint_parse_llama2c(checkpoint, &checkpoint->map);
}
