/* Token shards, written.
 *
 * Two passes over the corpus: the survey (sizes, and an early end for text that cannot be read), then
 * encoding.  Pieces are gathered into a batch, encoded by all threads, and appended to the shard that is
 * open.  All files are written into a folder of their own beside the final ones and moved at the end: until
 * then nothing that was there is touched.
 *
 * The split: everything from byte `cut` of the text on is validation; `cut` is the start of a document, or of
 * a line when there are too few documents to divide by. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "text/corpus.h"
#include "text/hash.h"
#include "text/shards.h"
#include "text/tokenizer.h"

enum { PIECE_BYTES = 1 << 18, BATCH_BYTES = 1 << 23, DOCUMENTS_TO_DIVIDE = 20 };

static const char *const split_names[] = {"train", "validation"};
enum { TRAIN, VALIDATION, N_SPLITS };

/* A piece of a document in memory of the batch, its text at an offset since that memory may move. */
typedef struct pending {
    int64_t offset, n_bytes;
    bool starts, ends;
} pending;

typedef struct shard_writer {
    const char *folder;
    char staging[SP_SHARD_PATH_BYTES]; /* "" until it is there */
    const sp_tokenizer *tokenizer;
    const sp_shards_write_options *options;
    sp_corpus_facts facts;
    int64_t cut; /* first byte of the validation text; facts.n_bytes: there is none */
    bool cut_in_documents;
    /* the batch */
    char *text;
    int64_t text_bytes, text_capacity;
    pending *pieces;
    int64_t n_pieces, pieces_capacity;
    int64_t n_bytes_read;
    /* the open shard */
    int split;
    int64_t n_shards[N_SPLITS];
    sp_file_writer file;
    sp_shard_header header;
    int64_t *documents;
    int64_t documents_capacity;
} shard_writer;

sp_shards_write_options sp_shards_write_options_default(void) {
    return (sp_shards_write_options){
        .struct_bytes = sizeof(sp_shards_write_options),
        .validation_fraction = 0.05,
        .shard_tokens_max = (int64_t)1 << 27,
    };
}

static sp_status check_options(const sp_shards_write_options *options) {
    SP_REQUIRE(options->struct_bytes == sizeof *options, SP_BAD_ARGUMENT, "shard options: struct_bytes is %zu, not %zu",
               options->struct_bytes, sizeof *options);
    SP_REQUIRE(options->validation_fraction >= 0 && options->validation_fraction < 1, SP_BAD_ARGUMENT,
               "validation fraction %g: at least 0 and below 1 is possible", options->validation_fraction);
    SP_REQUIRE(options->document_bytes_max >= 0, SP_BAD_ARGUMENT, "document_bytes_max %" PRId64 " is negative",
               options->document_bytes_max);
    SP_REQUIRE(options->shard_tokens_max > 0, SP_BAD_ARGUMENT, "shard_tokens_max %" PRId64 " is not positive",
               options->shard_tokens_max);
    return SP_OK;
}

/* Memory for at least n items of `item_bytes`: the same or moved; NULL, and the old one stays, when there is
 * none. */
static void *resized(void *memory, int64_t *capacity, int64_t n, int64_t item_bytes) {
    if (n <= *capacity) return memory;
    int64_t wanted = 2 * *capacity > n ? 2 * *capacity : n;
    void *moved = realloc(memory, (size_t)(wanted * item_bytes));
    if (moved) *capacity = wanted;
    return moved;
}

/* ---- one file ---- */

static sp_status begin_shard(shard_writer *writer) {
    char path[SP_SHARD_PATH_BYTES];
    int64_t index = writer->n_shards[writer->split]++;
    SP_REQUIRE(index < SP_SHARD_FILES_MAX, SP_BAD_ARGUMENT, "shard_tokens_max %" PRId64 " makes more than %d files",
               writer->options->shard_tokens_max, SP_SHARD_FILES_MAX);
    SP_TRY(sp_shard_path(path, writer->staging, split_names[writer->split], index));
    SP_TRY(sp_file_writer_open(&writer->file, path));
    int64_t vocabulary = sp_tokenizer_vocabulary(writer->tokenizer);
    writer->header = (sp_shard_header){
        .version = SP_SHARD_VERSION,
        .token_bytes = vocabulary <= 65536 ? 2 : 4,
        .vocabulary = vocabulary,
        .index = (uint32_t)index,
        .set = writer->facts.hash,
        .tokenizer = sp_tokenizer_hash(writer->tokenizer),
    };
    memcpy(writer->header.magic, SP_SHARD_MAGIC, sizeof writer->header.magic);
    return sp_file_writer_add(&writer->file, &writer->header, sizeof writer->header); /* written again at the end */
}

static sp_status finish_shard(shard_writer *writer, bool is_last) {
    static const char zeros[8] = {0};
    if (!writer->file.file) return SP_OK;
    sp_shard_header *header = &writer->header;
    int64_t token_bytes = header->n_tokens * header->token_bytes;
    SP_TRY(sp_file_writer_add(&writer->file, zeros, (8 - token_bytes % 8) % 8));
    SP_TRY(sp_file_writer_add(&writer->file, writer->documents, header->n_documents * 8));
    header->is_last = is_last;
    header->hash = sp_shard_header_hash(header);
    SP_REQUIRE(fseeko(writer->file.file, 0, SEEK_SET) == 0, SP_IO, "%s: %s", writer->file.path, strerror(errno));
    SP_TRY(sp_file_writer_add(&writer->file, header, sizeof *header));
    return sp_file_writer_finish(&writer->file);
}

static sp_status put_tokens(shard_writer *writer, const int32_t *tokens, int64_t n) {
    uint16_t narrow[1024];
    sp_status status = SP_OK;
    if (writer->header.token_bytes == 4) return sp_file_writer_add(&writer->file, tokens, 4 * n);
    for (int64_t at = 0; at < n && status == SP_OK; at += 1024) {
        int64_t here = n - at < 1024 ? n - at : 1024;
        for (int64_t i = 0; i < here; i++) narrow[i] = (uint16_t)tokens[at + i];
        status = sp_file_writer_add(&writer->file, narrow, 2 * here);
    }
    return status;
}

/* Appends to the run, opening and closing files on the way. */
static sp_status add_tokens(shard_writer *writer, const int32_t *tokens, int64_t n) {
    while (n > 0) {
        int64_t room = writer->options->shard_tokens_max - writer->header.n_tokens;
        if (writer->file.file && room == 0) SP_TRY(finish_shard(writer, false));
        if (!writer->file.file) {
            SP_TRY(begin_shard(writer));
            room = writer->options->shard_tokens_max;
        }
        int64_t here = n < room ? n : room;
        SP_TRY(put_tokens(writer, tokens, here));
        writer->header.n_tokens += here;
        tokens += here;
        n -= here;
    }
    return SP_OK;
}

/* ---- the batch ---- */

/* The first token of a document goes to a file; the document's start is then one before the file's end. */
static sp_status add_document_start(shard_writer *writer) {
    int64_t n = writer->header.n_documents;
    int64_t *documents = resized(writer->documents, &writer->documents_capacity, n + 1, sizeof *documents);
    SP_REQUIRE(documents, SP_OUT_OF_MEMORY, "writing shards: no memory for %" PRId64 " documents", n + 1);
    writer->documents = documents;
    writer->documents[writer->header.n_documents++] = writer->header.n_tokens - 1;
    return SP_OK;
}

static sp_status add_encoding(shard_writer *writer, const pending *piece, const sp_encoding *encoding) {
    int32_t bos = sp_tokenizer_bos(writer->tokenizer), eos = sp_tokenizer_eos(writer->tokenizer);
    const int32_t *tokens = encoding->tokens;
    int64_t n = encoding->n_tokens;
    if (piece->starts) {
        if (bos < 0 && n == 0) return SP_OK; /* nothing stands for this document */
        SP_TRY(add_tokens(writer, bos >= 0 ? &bos : tokens, 1));
        if (bos < 0) tokens++, n--;
        SP_TRY(add_document_start(writer));
    }
    SP_TRY(add_tokens(writer, tokens, n));
    if (piece->ends && eos >= 0) SP_TRY(add_tokens(writer, &eos, 1));
    if (writer->file.file) writer->header.text_bytes += piece->n_bytes;
    return SP_OK;
}

static sp_status report(const shard_writer *writer) {
    const sp_shards_write_options *options = writer->options;
    int cancel = options->progress ? options->progress(options->progress_user, "encoding", writer->n_bytes_read,
                                                       writer->facts.n_bytes)
                                   : 0;
    SP_REQUIRE(!cancel, SP_CANCELLED, "writing shards: cancelled");
    return SP_OK;
}

static sp_status flush_batch(shard_writer *writer) {
    if (writer->n_pieces == 0) return SP_OK;
    sp_status status = SP_OK;
    int64_t n = writer->n_pieces;
    sp_encoding *encodings = calloc((size_t)n, sizeof *encodings);
    SP_REQUIRE(encodings, SP_OUT_OF_MEMORY, "writing shards: no memory for %" PRId64 " pieces", n);
    for (int64_t i = 0; i < n; i++)
        encodings[i] = (sp_encoding){.text = writer->text + writer->pieces[i].offset,
                                     .n_bytes = writer->pieces[i].n_bytes,
                                     .continues = !writer->pieces[i].starts};
    SP_TRY_OR_DONE(sp_tokenizer_encode_all(writer->tokenizer, encodings, n));
    for (int64_t i = 0; i < n; i++) SP_TRY_OR_DONE(add_encoding(writer, &writer->pieces[i], &encodings[i]));
    writer->n_pieces = 0;
    writer->text_bytes = 0;
    SP_TRY_OR_DONE(report(writer));
done:
    for (int64_t i = 0; i < n; i++) free(encodings[i].tokens);
    free(encodings);
    return status;
}

static sp_status add_piece(shard_writer *writer, const sp_corpus_piece *piece) {
    char *text = resized(writer->text, &writer->text_capacity, writer->text_bytes + piece->n_bytes, 1);
    if (text) writer->text = text;
    pending *pieces = resized(writer->pieces, &writer->pieces_capacity, writer->n_pieces + 1, sizeof *pieces);
    if (pieces) writer->pieces = pieces;
    SP_REQUIRE(text && pieces, SP_OUT_OF_MEMORY, "writing shards: no memory for %" PRId64 " bytes of text",
               writer->text_bytes + piece->n_bytes);
    memcpy(writer->text + writer->text_bytes, piece->text, (size_t)piece->n_bytes);
    writer->pieces[writer->n_pieces++] = (pending){writer->text_bytes, piece->n_bytes, piece->starts, piece->ends};
    writer->text_bytes += piece->n_bytes;
    writer->n_bytes_read += piece->n_bytes;
    return writer->text_bytes >= BATCH_BYTES ? flush_batch(writer) : SP_OK;
}

/* ---- the split ---- */

static sp_status choose_cut(shard_writer *writer) {
    const sp_corpus_facts *facts = &writer->facts;
    writer->cut = facts->n_bytes;
    if (writer->options->validation_fraction == 0) return SP_OK;
    writer->cut_in_documents = facts->n_documents < DOCUMENTS_TO_DIVIDE;
    int64_t last = facts->last_document; /* the last place where a cut is possible */
    if (writer->cut_in_documents && facts->last_line > last) last = facts->last_line;
    SP_REQUIRE(last > 0, SP_BAD_FILE,
               "the text is one line: nothing can be held out for validation (a validation fraction of 0 "
               "asks for none)");
    int64_t held_out = (int64_t)((double)facts->n_bytes * writer->options->validation_fraction);
    int64_t cut = facts->n_bytes - held_out;
    writer->cut = cut < 1 ? 1 : cut > last ? last : cut;
    return SP_OK;
}

static sp_status begin_validation(shard_writer *writer) {
    SP_TRY(flush_batch(writer));
    SP_TRY(finish_shard(writer, true));
    writer->split = VALIDATION;
    return SP_OK;
}

/* Gives the piece to its split.  The piece in which validation begins is cut before the first line from there
 * on. */
static sp_status place_piece(shard_writer *writer, sp_corpus_piece piece) {
    int64_t left = writer->cut - writer->n_bytes_read; /* bytes to the cut */
    if (writer->split == VALIDATION || left >= piece.n_bytes) return add_piece(writer, &piece);
    if (left <= 0 && piece.starts) {
        SP_TRY(begin_validation(writer));
        return add_piece(writer, &piece);
    }
    int64_t from = left > 0 ? left - 1 : 0; /* the newline just before the cut is the first that counts */
    const char *newline = memchr(piece.text + from, '\n', (size_t)(piece.n_bytes - from));
    int64_t head = newline ? newline + 1 - piece.text : piece.n_bytes;
    if (!writer->cut_in_documents || head == piece.n_bytes) return add_piece(writer, &piece);
    sp_corpus_piece before = {piece.text, head, piece.starts, true};
    sp_corpus_piece after = {piece.text + head, piece.n_bytes - head, true, piece.ends};
    SP_TRY(add_piece(writer, &before));
    SP_TRY(begin_validation(writer));
    return add_piece(writer, &after);
}

/* ---- the whole set ---- */

static sp_status encode_corpus(shard_writer *writer, const char *const *paths, int64_t n_paths,
                               const sp_corpus_options *reading) {
    sp_corpus *corpus;
    SP_TRY(sp_corpus_open(&corpus, paths, n_paths, reading));
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(report(writer));
    for (;;) {
        sp_corpus_piece piece;
        SP_TRY_OR_DONE(sp_corpus_next(corpus, &piece));
        if (!piece.text) break;
        SP_TRY_OR_DONE(place_piece(writer, piece));
    }
    SP_TRY_OR_DONE(flush_batch(writer));
    SP_TRY_OR_DONE(finish_shard(writer, true));
done:
    sp_corpus_close(corpus);
    return status;
}

static sp_status move_split(const shard_writer *writer, int split) {
    char from[SP_SHARD_PATH_BYTES], to[SP_SHARD_PATH_BYTES];
    for (int64_t i = 0; i < writer->n_shards[split]; i++) {
        SP_TRY(sp_shard_path(from, writer->staging, split_names[split], i));
        SP_TRY(sp_shard_path(to, writer->folder, split_names[split], i));
        SP_REQUIRE(rename(from, to) == 0, SP_IO, "%s: %s", to, strerror(errno));
    }
    for (int64_t i = writer->n_shards[split];; i++) { /* what a larger set has left */
        SP_TRY(sp_shard_path(to, writer->folder, split_names[split], i));
        if (!sp_file_exists(to)) return SP_OK;
        SP_REQUIRE(unlink(to) == 0, SP_IO, "%s: %s", to, strerror(errno));
    }
}

static sp_status make_staging(shard_writer *writer) {
    char name[64];
    snprintf(name, sizeof name, ".shards.tmp.%ld", (long)getpid());
    SP_TRY(sp_folder_make(writer->folder));
    SP_TRY(sp_path_join(writer->staging, sizeof writer->staging, writer->folder, name));
    SP_TRY(sp_folder_remove(writer->staging));
    return sp_folder_make(writer->staging);
}

static sp_status write_set(shard_writer *writer, const char *const *paths, int64_t n_paths) {
    sp_corpus_options reading = {
        .piece_bytes = sp_tokenizer_cuts_at_newlines(writer->tokenizer) ? PIECE_BYTES : 0,
        .document_bytes_max = writer->options->document_bytes_max,
    };
    SP_TRY(sp_corpus_survey(&writer->facts, paths, n_paths, &reading, writer->options->progress,
                            writer->options->progress_user));
    SP_TRY(choose_cut(writer));
    uint64_t hash = writer->facts.hash ^ sp_tokenizer_hash(writer->tokenizer);
    writer->facts.hash = sp_hash_bytes(hash, &writer->cut, sizeof writer->cut);
    SP_TRY(make_staging(writer));
    SP_TRY(encode_corpus(writer, paths, n_paths, &reading));
    for (int split = 0; split < N_SPLITS; split++) SP_TRY(move_split(writer, split));
    return sp_folder_sync(writer->folder);
}

sp_status sp_shards_write(const char *folder, const sp_tokenizer *tokenizer, const char *const *paths, int64_t n_paths,
                          const sp_shards_write_options *options) {
    sp_shards_write_options defaults = sp_shards_write_options_default();
    if (!options) options = &defaults;
    SP_REQUIRE(folder && tokenizer, SP_BAD_ARGUMENT, "writing shards: no folder or no tokenizer");
    SP_TRY(check_options(options));
    shard_writer *writer = calloc(1, sizeof *writer);
    SP_REQUIRE(writer, SP_OUT_OF_MEMORY, "%s: no memory to write shards", folder);
    writer->folder = folder;
    writer->tokenizer = tokenizer;
    writer->options = options;
    bool was_there = sp_folder_exists(folder);
    sp_status status = write_set(writer, paths, n_paths);
    sp_file_writer_abandon(&writer->file);
    /* Leftovers may stay when even removing fails: their name shows what they are. */
    if (writer->staging[0]) (void)!sp_folder_remove(writer->staging);
    if (status != SP_OK && !was_there) rmdir(folder);
    free(writer->text);
    free(writer->pieces);
    free(writer->documents);
    free(writer);
    return status;
}
