/* llama2.c's tokenizer.bin: bytes of the longest piece, then of each piece a score, its length and its bytes, where "▁"
 * is a space and BOS and EOS stand on lines of their own. */
#include "softpick/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

typedef struct piece {
    const char *bytes;
    uint32_t n_bytes;
    bool on_a_line;
} piece;

/* The piece as it stands in the file; returns its length. */
static uint32_t spell(char *out, const piece *from) {
    static const char space[] = "\xe2\x96\x81";
    uint32_t n = 0;
    if (from->on_a_line) out[n++] = '\n';
    for (uint32_t i = 0; i < from->n_bytes;) {
        bool is_space = from->n_bytes - i >= 3 && memcmp(from->bytes + i, space, 3) == 0;
        out[n++] = is_space ? ' ' : from->bytes[i];
        i += is_space ? 3 : 1;
    }
    if (from->on_a_line) out[n++] = '\n';
    return n;
}

static piece piece_at(const json_t *keys, size_t id) {
    const json_t *text = json_array_get(json_object_get(keys, "tokenizer.ggml.tokens"), id);
    const json_t *bos = json_object_get(keys, "tokenizer.ggml.bos_token_id");
    const json_t *eos = json_object_get(keys, "tokenizer.ggml.eos_token_id");
    bool marks = (bos && (size_t)json_integer_value(bos) == id) || (eos && (size_t)json_integer_value(eos) == id);
    return (piece){json_string_value(text), (uint32_t)json_string_length(text), marks};
}

static sp_status write_pieces(sp_file_writer *file, const json_t *keys) {
    const json_t *tokens = json_object_get(keys, "tokenizer.ggml.tokens");
    const json_t *scores = json_object_get(keys, "tokenizer.ggml.scores");
    size_t n = json_array_size(tokens);
    uint32_t longest = 0, room = 0, length;
    for (size_t i = 0; i < n; i++) {
        piece at = piece_at(keys, i);
        SP_REQUIRE(at.bytes && at.n_bytes < 1 << 20, SP_BAD_ARGUMENT, "%s: piece %zu is no text", file->path, i);
        if (at.n_bytes + 2 > room) room = at.n_bytes + 2;
    }
    char *text = malloc(room + 1);
    SP_REQUIRE(text, SP_OUT_OF_MEMORY, "%s: no memory", file->path);
    sp_status status = SP_OK;
    for (size_t i = 0; i < n; i++) {
        piece at = piece_at(keys, i);
        length = spell(text, &at);
        if (length > longest) longest = length;
    }
    SP_TRY_OR_DONE(sp_file_writer_add(file, &longest, sizeof longest));
    for (size_t i = 0; i < n; i++) {
        piece at = piece_at(keys, i);
        float score = (float)json_number_value(json_array_get(scores, i));
        length = spell(text, &at);
        SP_TRY_OR_DONE(sp_file_writer_add(file, &score, sizeof score));
        SP_TRY_OR_DONE(sp_file_writer_add(file, &length, sizeof length));
        SP_TRY_OR_DONE(sp_file_writer_add(file, text, length));
    }
done:
    free(text);
    return status;
}

sp_status sp_checkpoint_write_llama2c_tokenizer(const char *path, const char *vocabulary) {
    json_t *keys;
    sp_file_writer file = {0};
    SP_TRY(sp_json_parse(&keys, vocabulary, (int64_t)strlen(vocabulary), path));
    const char *kind = json_string_value(json_object_get(keys, "tokenizer.ggml.model"));
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(kind && strcmp(kind, "llama") == 0, SP_UNSUPPORTED,
                       "%s: llama2.c's tokenizers are like sentencepiece's, this one is of kind %s", path,
                       kind ? kind : "none");
    SP_TRY_OR_DONE(sp_file_writer_open(&file, path));
    SP_TRY_OR_DONE(write_pieces(&file, keys));
    SP_TRY_OR_DONE(sp_file_writer_finish(&file));
done:
    sp_file_writer_abandon(&file);
    json_decref(keys);
    return status;
}
