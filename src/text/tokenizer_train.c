/* Training a tokenizer: an even sample of the corpus's lines goes to sentencepiece's trainer. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "softpick/text.h"
#include "text/corpus.h"
#include "text/sentencepiece_shim.h"

enum { PIECE_BYTES = 1 << 20, PROGRESS_BYTES = 1 << 20 };

static const char *const kinds[] = {"bpe", "unigram"};

sp_tokenizer_train_options sp_tokenizer_train_options_default(void) {
    return (sp_tokenizer_train_options){
        .struct_bytes = sizeof(sp_tokenizer_train_options),
        .kind = kinds[0],
        .vocabulary = 8192,
        .n_bytes_max = (int64_t)64 << 20,
    };
}

typedef struct line_source {
    const sp_tokenizer_train_options *options;
    sp_corpus *corpus;
    sp_corpus_piece piece; /* what is left of it */
    int64_t total, n_seen, n_taken;
    int64_t next_report;
} line_source;

static sp_status report(line_source *source) {
    const sp_tokenizer_train_options *options = source->options;
    if (!options->progress || source->n_seen < source->next_report) return SP_OK;
    source->next_report = source->n_seen + PROGRESS_BYTES;
    int cancel = options->progress(options->progress_user, "reading text", source->n_seen, source->total);
    SP_REQUIRE(!cancel, SP_CANCELLED, "training the tokenizer: cancelled");
    return SP_OK;
}

/* Takes lines as long as the share taken is behind the share wanted of what was seen: evenly over the corpus. */
static bool is_wanted(const line_source *source) {
    int64_t most = source->options->n_bytes_max;
    if (most == 0 || source->total <= most) return true;
    return (double)source->n_taken <= (double)source->n_seen * ((double)most / (double)source->total);
}

static sp_status next_line(void *user, const char **text, int64_t *n_bytes) {
    line_source *source = user;
    *text = NULL;
    for (;;) {
        sp_corpus_piece *piece = &source->piece;
        if (piece->n_bytes == 0) {
            SP_TRY(sp_corpus_next(source->corpus, piece));
            SP_TRY(report(source));
            SP_REQUIRE(piece->text || source->n_taken > 0, SP_BAD_FILE,
                       "the text has no line that is not empty: no tokenizer can be trained on it");
            if (!piece->text) return SP_OK;
        }
        const char *line = piece->text, *newline = memchr(line, '\n', (size_t)piece->n_bytes);
        int64_t length = newline ? newline - line : piece->n_bytes, step = newline ? length + 1 : length;
        bool wanted = length > 0 && is_wanted(source);
        piece->text += step;
        piece->n_bytes -= step;
        source->n_seen += step;
        if (!wanted) continue;
        source->n_taken += length;
        *text = line;
        *n_bytes = length;
        return SP_OK;
    }
}

static sp_status check_options(const sp_tokenizer_train_options *options) {
    SP_REQUIRE(options->struct_bytes == sizeof *options, SP_BAD_ARGUMENT,
               "tokenizer training options: struct_bytes is %zu, not %zu", options->struct_bytes, sizeof *options);
    bool known = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) known |= strcmp(options->kind, kinds[i]) == 0;
    SP_REQUIRE(known, SP_BAD_ARGUMENT, "kind %s: bpe and unigram are known", options->kind);
    SP_REQUIRE(options->vocabulary > 259 && options->vocabulary <= 1 << 24, SP_BAD_ARGUMENT,
               "vocabulary %" PRId64 ": 260 to 16777216 is possible (3 special and 256 byte pieces are part of it)",
               options->vocabulary);
    SP_REQUIRE(options->n_bytes_max >= 0, SP_BAD_ARGUMENT, "n_bytes_max %" PRId64 " is negative", options->n_bytes_max);
    return SP_OK;
}

sp_status sp_tokenizer_train(const char *out_path, const char *const *paths, int64_t n_paths,
                             const sp_tokenizer_train_options *options) {
    sp_tokenizer_train_options defaults = sp_tokenizer_train_options_default();
    if (!options) options = &defaults;
    SP_TRY(check_options(options));
    sp_corpus_options reading = {.piece_bytes = PIECE_BYTES};
    sp_corpus_facts facts;
    SP_TRY(sp_corpus_survey(&facts, paths, n_paths, &reading, options->progress, options->progress_user));
    line_source source = {.options = options, .total = facts.n_bytes};
    SP_TRY(sp_corpus_open(&source.corpus, paths, n_paths, &reading));
    char *model;
    int64_t n_bytes;
    sp_status status = sp_sentencepiece_train(&model, &n_bytes, options->kind, options->vocabulary, next_line, &source);
    sp_corpus_close(source.corpus);
    SP_TRY(status);
    status = sp_file_write(out_path, model, n_bytes);
    free(model);
    return status;
}
