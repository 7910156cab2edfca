/* Vocabularies of pieces as llama2.c and GGUF files hold them.
 *
 * tokenizer.bin: the longest piece's bytes (4 bytes, not used), then for each piece its score (f32), its bytes (i32) and
 * the bytes themselves, in which a space stands for a space.  It has no types: piece 0 is unknown, 1 and 2 begin and end
 * a text, with newlines around their names, and "<0xHH>" are bytes. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf.h"
#include "text/bytes.h"
#include "text/decoder.h"
#include "text/pieces.h"
#include "text/utf8.h"

enum { PIECES_MAX = 1 << 24 };

void sp_pieces_file_free(sp_pieces_file *file) {
    for (size_t i = 0; i < sizeof file->memory / sizeof *file->memory; i++) free(file->memory[i]);
    sp_gguf_close(file->gguf);
    *file = (sp_pieces_file){0};
}

static sp_status check_piece(const sp_piece *piece, int64_t id, const char *source) {
    SP_REQUIRE(piece->n_bytes > 0, SP_BAD_FILE, "%s: piece %" PRId64 " is empty", source, id);
    SP_REQUIRE(sp_utf8_prefix(piece->text, piece->n_bytes) == piece->n_bytes, SP_BAD_FILE,
               "%s: piece %" PRId64 " is not UTF-8", source, id);
    SP_REQUIRE(piece->score == piece->score, SP_BAD_FILE, "%s: piece %" PRId64 " has no score", source, id);
    return SP_OK;
}

/* ---- llama2.c ---- */

typedef struct bin_reader {
    const char *bytes, *source;
    int64_t n_bytes, at;
} bin_reader;

static bool read_i32(bin_reader *in, int32_t *value) {
    if (in->n_bytes - in->at < 4) return false;
    memcpy(value, in->bytes + in->at, 4);
    in->at += 4;
    return true;
}

/* "▁" for each space, at the end of `texts`. */
static sp_status add_marked(sp_bytes *texts, const char *text, int64_t n_bytes) {
    for (int64_t i = 0; i < n_bytes; i++)
        SP_TRY(text[i] == ' ' ? sp_bytes_add(texts, "\xe2\x96\x81", 3) : sp_bytes_add(texts, text + i, 1));
    return SP_OK;
}

/* Type, and text without the newlines around names of special pieces. */
static void find_type(sp_piece *piece, int64_t id) {
    const char *text = piece->text;
    piece->type = id == 0 ? SP_PIECE_UNKNOWN : id <= 2 ? SP_PIECE_CONTROL : SP_PIECE_NORMAL;
    if (id > 2 && sp_byte_token(text, piece->n_bytes) >= 0) piece->type = SP_PIECE_BYTE;
    bool framed =
        piece->type == SP_PIECE_CONTROL && piece->n_bytes > 2 && *text == '\n' && text[piece->n_bytes - 1] == '\n';
    if (!framed) return;
    piece->text++;
    piece->n_bytes -= 2;
}

static sp_status read_bin_piece(bin_reader *in, sp_bytes *texts, sp_piece *piece, int64_t id) {
    int32_t score, n_bytes;
    bool is_whole = read_i32(in, &score) && read_i32(in, &n_bytes) && n_bytes >= 0 && n_bytes <= in->n_bytes - in->at;
    SP_REQUIRE(is_whole, SP_BAD_FILE, "%s: piece %" PRId64 " is cut short", in->source, id);
    int64_t begin = texts->n;
    SP_TRY(add_marked(texts, in->bytes + in->at, n_bytes));
    in->at += n_bytes;
    *piece = (sp_piece){.text = texts->data + begin, .n_bytes = texts->n - begin};
    memcpy(&piece->score, &score, sizeof score);
    SP_TRY(check_piece(piece, id, in->source));
    find_type(piece, id);
    return SP_OK;
}

sp_status sp_pieces_read_bin(sp_pieces_file *file, const void *bytes, int64_t n_bytes, const char *source) {
    *file = (sp_pieces_file){0};
    bin_reader in = {.bytes = bytes, .source = source, .n_bytes = n_bytes};
    int32_t longest;
    SP_REQUIRE(read_i32(&in, &longest) && n_bytes > 4, SP_BAD_FILE, "%s: it has no pieces", source);
    sp_bytes texts = {0};
    int64_t n = 0, capacity = n_bytes / 9 + 1; /* a piece has 9 bytes or more */
    sp_piece *items = malloc((size_t)capacity * sizeof *items);
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(items, SP_OUT_OF_MEMORY, "%s: no memory for its pieces", source);
    SP_TRY_OR_DONE(sp_bytes_reserve(&texts, 3 * n_bytes)); /* no pointer into it moves */
    for (; in.at < n_bytes; n++) SP_TRY_OR_DONE(read_bin_piece(&in, &texts, &items[n], n));
    SP_REQUIRE_OR_DONE(n > 3, SP_BAD_FILE, "%s: it has %" PRId64 " pieces, too few", source, n);
    file->pieces = (sp_pieces){.kind = SP_PIECES_SENTENCEPIECE,
                               .items = items,
                               .n = n,
                               .bos = 1,
                               .eos = 2,
                               .pad = -1,
                               .add_bos = true,
                               .add_space_prefix = true};
    file->memory[0] = items;
    file->memory[1] = texts.data;
    return SP_OK;
done:
    free(items);
    sp_bytes_free(&texts);
    return status;
}

/* ---- GGUF ---- */

typedef struct gguf_reader {
    sp_gguf *gguf;
    sp_pieces_file *file;
    const char *source;
} gguf_reader;

static sp_status read_id(const gguf_reader *in, const char *key, int32_t *id) {
    int64_t value = -1;
    SP_TRY(sp_gguf_integer(in->gguf, key, &value));
    SP_REQUIRE(value >= -1 && value < in->file->pieces.n, SP_BAD_FILE, "%s: %s %" PRId64 " is outside the vocabulary",
               in->source, key, value);
    *id = (int32_t)value;
    return SP_OK;
}

/* An array as long as the vocabulary, NULL if the file has none. */
static sp_status find_array(const gguf_reader *in, const char *key, const sp_gguf_value **array) {
    *array = sp_gguf_find(in->gguf, key);
    SP_REQUIRE(!*array || ((*array)->is_array && (*array)->n == in->file->pieces.n), SP_BAD_FILE,
               "%s: %s is no list with an item for each token", in->source, key);
    return SP_OK;
}

static sp_status read_items(gguf_reader *in, const sp_gguf_value *tokens) {
    sp_pieces *pieces = &in->file->pieces;
    const sp_gguf_value *scores, *types;
    SP_TRY(find_array(in, "tokenizer.ggml.scores", &scores));
    SP_TRY(find_array(in, "tokenizer.ggml.token_type", &types));
    SP_REQUIRE(scores || pieces->kind == SP_PIECES_BYTE_LEVEL, SP_BAD_FILE, "%s: tokenizer.ggml.scores is missing",
               in->source);
    sp_piece *items = malloc((size_t)pieces->n * sizeof *items);
    SP_REQUIRE(items, SP_OUT_OF_MEMORY, "%s: no memory for its tokens", in->source);
    in->file->memory[0] = items;
    pieces->items = items;
    const uint8_t *at = tokens->data;
    for (int64_t id = 0; id < pieces->n; id++) {
        sp_gguf_string text = sp_gguf_next_string(&at);
        int64_t type = types ? sp_gguf_integer_at(types, id) : SP_PIECE_NORMAL;
        SP_REQUIRE(type >= SP_PIECE_NORMAL && type <= SP_PIECE_BYTE, SP_BAD_FILE,
                   "%s: token %" PRId64 " has type %" PRId64 ", which is not known", in->source, id, type);
        items[id] = (sp_piece){.text = text.bytes,
                               .n_bytes = text.n_bytes,
                               .score = scores ? (float)sp_gguf_number_at(scores, id) : 0,
                               .type = (sp_piece_type)type};
        SP_TRY(check_piece(&items[id], id, in->source));
    }
    return SP_OK;
}

/* Merges as texts with zeros behind them. */
static sp_status read_merges(gguf_reader *in) {
    sp_pieces *pieces = &in->file->pieces;
    const sp_gguf_value *list = sp_gguf_find(in->gguf, "tokenizer.ggml.merges");
    SP_REQUIRE(list && list->is_array && list->kind == SP_GGUF_STRING, SP_BAD_FILE,
               "%s: tokenizer.ggml.merges is no list of texts", in->source);
    int64_t n_bytes = 1;
    const uint8_t *at = list->data;
    for (int64_t i = 0; i < list->n; i++) n_bytes += sp_gguf_next_string(&at).n_bytes + 1;
    const char **merges = malloc((size_t)(list->n + 1) * sizeof *merges);
    char *texts = calloc((size_t)n_bytes, 1);
    in->file->memory[1] = (void *)merges;
    in->file->memory[2] = texts;
    SP_REQUIRE(merges && texts, SP_OUT_OF_MEMORY, "%s: no memory for its merges", in->source);
    at = list->data;
    for (int64_t i = 0; i < list->n; i++) {
        sp_gguf_string text = sp_gguf_next_string(&at);
        memcpy(texts, text.bytes, (size_t)text.n_bytes);
        merges[i] = texts;
        texts += text.n_bytes + 1;
    }
    pieces->merges = merges;
    pieces->n_merges = list->n;
    return SP_OK;
}

static sp_status read_gguf(gguf_reader *in) {
    sp_pieces *pieces = &in->file->pieces;
    const char *model = NULL;
    const sp_gguf_value *tokens = sp_gguf_find(in->gguf, "tokenizer.ggml.tokens");
    SP_TRY(sp_gguf_text(in->gguf, "tokenizer.ggml.model", &model));
    SP_REQUIRE(model && tokens, SP_BAD_FILE, "%s: it has no vocabulary (tokenizer.ggml.model and tokens)", in->source);
    SP_REQUIRE(tokens->is_array && tokens->kind == SP_GGUF_STRING && tokens->n > 0 && tokens->n < PIECES_MAX,
               SP_BAD_FILE, "%s: tokenizer.ggml.tokens is no list of texts", in->source);
    bool byte_level = strcmp(model, "gpt2") == 0;
    SP_REQUIRE(byte_level || strcmp(model, "llama") == 0, SP_UNSUPPORTED,
               "%s: tokenizer.ggml.model '%.100s' is not supported (llama and gpt2 are)", in->source, model);
    pieces->kind = byte_level ? SP_PIECES_BYTE_LEVEL : SP_PIECES_SENTENCEPIECE;
    pieces->n = tokens->n;
    pieces->add_bos = pieces->add_space_prefix = !byte_level;
    SP_TRY(read_items(in, tokens));
    SP_TRY(read_id(in, "tokenizer.ggml.bos_token_id", &pieces->bos));
    SP_TRY(read_id(in, "tokenizer.ggml.eos_token_id", &pieces->eos));
    SP_TRY(read_id(in, "tokenizer.ggml.unknown_token_id", &pieces->unk));
    SP_TRY(read_id(in, "tokenizer.ggml.padding_token_id", &pieces->pad));
    SP_TRY(sp_gguf_flag(in->gguf, "tokenizer.ggml.add_bos_token", &pieces->add_bos));
    SP_TRY(sp_gguf_flag(in->gguf, "tokenizer.ggml.add_eos_token", &pieces->add_eos));
    SP_TRY(sp_gguf_flag(in->gguf, "tokenizer.ggml.add_space_prefix", &pieces->add_space_prefix));
    SP_TRY(sp_gguf_text(in->gguf, "tokenizer.ggml.pre", &pieces->splitter));
    return byte_level ? read_merges(in) : SP_OK;
}

sp_status sp_pieces_read_gguf(sp_pieces_file *file, const void *bytes, int64_t n_bytes, const char *source) {
    *file = (sp_pieces_file){0};
    sp_gguf *gguf;
    SP_TRY(sp_gguf_parse(&gguf, bytes, n_bytes, source));
    gguf_reader in = {gguf, file, source};
    sp_status status = read_gguf(&in);
    file->gguf = gguf;
    if (status != SP_OK) sp_pieces_file_free(file);
    return status;
}
