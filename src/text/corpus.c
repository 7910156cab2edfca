/* Documents out of text files and JSON lines.
 *
 * buffer:   [ ... consumed ... | at: unread line, unread line, ... | end: room for the next read ]
 * Lines end at newline bytes and nowhere else: the texts hold U+2028, U+2029 and U+0085, which are characters
 * of their lines.  What a document is: text.h.  Blank JSON lines and documents with an empty text are passed
 * over. Which files: corpus_files.c.  Decompression: stream.c. */
#define _GNU_SOURCE
#include "text/corpus.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/hash.h"
#include "text/stream.h"
#include "text/utf8.h"

enum { REPORT_BYTES = 1 << 24 }; /* between two reports of the survey */

/* A longer line is taken for damage, not for text: memory is bounded by a few of these. */
static const int64_t line_bytes_max = (int64_t)1 << 28;

struct sp_corpus {
    sp_corpus_options options;
    sp_corpus_files files;
    int64_t file;      /* being read */
    sp_stream *stream; /* NULL: between two files */
    bool file_ended;   /* the stream has no more than what is in the buffer */
    char *buffer;
    int64_t at, end, capacity;
    int64_t line;           /* lines read of this file */
    int64_t document_bytes; /* of this text document, in pieces already given */
    bool file_has_text;
    json_t *json; /* holds the text of the last piece */
};

static const char *file_name(const sp_corpus *corpus) {
    const char *path = corpus->files.items[corpus->file].path;
    return strcmp(path, "-") == 0 ? "standard input" : path;
}

/* ---- the buffer ---- */

static sp_status make_room(sp_corpus *corpus) {
    memmove(corpus->buffer, corpus->buffer + corpus->at, (size_t)(corpus->end - corpus->at));
    corpus->end -= corpus->at;
    corpus->at = 0;
    if (2 * corpus->end < corpus->capacity) return SP_OK;
    SP_REQUIRE(corpus->capacity < 4 * line_bytes_max, SP_BAD_FILE,
               "%s, line %" PRId64 ": longer than %" PRId64 " bytes", file_name(corpus), corpus->line + 1,
               line_bytes_max);
    char *buffer = realloc(corpus->buffer, (size_t)(2 * corpus->capacity));
    SP_REQUIRE(buffer, SP_OUT_OF_MEMORY, "%s: no memory for a line of %" PRId64 " bytes", file_name(corpus),
               corpus->end);
    corpus->buffer = buffer;
    corpus->capacity *= 2;
    return SP_OK;
}

static sp_status fill(sp_corpus *corpus) {
    if (corpus->end == corpus->capacity) SP_TRY(make_room(corpus));
    int64_t n;
    SP_TRY(sp_stream_read(corpus->stream, corpus->buffer + corpus->end, corpus->capacity - corpus->end, &n));
    corpus->file_ended = n == 0;
    corpus->end += n;
    return SP_OK;
}

/* Length, newline included, of the line that begins `skip` bytes after `at`; 0 when the file is over there. */
static sp_status find_line(sp_corpus *corpus, int64_t skip, int64_t *n_bytes) {
    for (int64_t searched = skip;;) {
        const char *line = corpus->buffer + corpus->at + skip;
        int64_t available = corpus->end - corpus->at;
        const char *newline = memchr(corpus->buffer + corpus->at + searched, '\n', (size_t)(available - searched));
        *n_bytes = newline ? newline + 1 - line : available - skip;
        SP_REQUIRE(*n_bytes <= line_bytes_max, SP_BAD_FILE, "%s, line %" PRId64 ": longer than %" PRId64 " bytes",
                   file_name(corpus), corpus->line + 1, line_bytes_max);
        if (newline || corpus->file_ended) return SP_OK;
        searched = available;
        SP_TRY(fill(corpus));
    }
}

/* ---- text files ---- */

static sp_status check_text(const sp_corpus *corpus, const char *line, int64_t n_bytes) {
    int64_t valid = sp_utf8_prefix(line, n_bytes);
    if (valid == n_bytes) return SP_OK;
    const char *what = line[valid] == 0 ? "a zero byte" : "a byte that is not UTF-8";
    return sp_fail(SP_BAD_FILE, "%s, line %" PRId64 ": %s at column %" PRId64 ": this is not text", file_name(corpus),
                   corpus->line, what, valid + 1);
}

static void give_text(sp_corpus *corpus, sp_corpus_piece *piece, int64_t n_bytes, bool ends) {
    *piece = (sp_corpus_piece){corpus->buffer + corpus->at, n_bytes, corpus->document_bytes == 0, ends};
    corpus->at += n_bytes;
    corpus->document_bytes = ends ? 0 : corpus->document_bytes + n_bytes;
}

static bool fits_document(const sp_corpus *corpus, int64_t n_bytes) {
    int64_t most = corpus->options.document_bytes_max;
    return most == 0 || corpus->document_bytes + n_bytes <= most;
}

/* Lines until the piece or the document is full.  A full piece leaves its last newline to the next one. */
static sp_status next_text(sp_corpus *corpus, sp_corpus_piece *piece) {
    int64_t n = corpus->document_bytes > 0 ? 1 : 0; /* the newline that was left, already checked and counted */
    for (;;) {
        int64_t line_bytes;
        SP_TRY(find_line(corpus, n, &line_bytes));
        if (line_bytes == 0) {
            if (n > 0) give_text(corpus, piece, n, true);
            return SP_OK;
        }
        if (n > 0 && !fits_document(corpus, n + line_bytes)) {
            give_text(corpus, piece, n, true);
            return SP_OK;
        }
        corpus->line++;
        SP_TRY(check_text(corpus, corpus->buffer + corpus->at + n, line_bytes));
        n += line_bytes;
        corpus->file_has_text = true;
        bool whole_line = corpus->buffer[corpus->at + n - 1] == '\n';
        if (corpus->options.piece_bytes > 0 && n > corpus->options.piece_bytes && whole_line) {
            give_text(corpus, piece, n - 1, false);
            return SP_OK;
        }
    }
}

/* ---- JSON lines ---- */

static bool is_blank(const char *line, int64_t n_bytes) {
    for (int64_t i = 0; i < n_bytes; i++)
        if (!strchr(" \t\r\n", line[i]) || line[i] == 0) return false;
    return true;
}

static sp_status parse_line(sp_corpus *corpus, const char *line, int64_t n_bytes, sp_corpus_piece *piece) {
    json_error_t error;
    const char *name = file_name(corpus);
    corpus->json = json_loadb(line, (size_t)n_bytes, JSON_REJECT_DUPLICATES, &error);
    SP_REQUIRE(corpus->json, SP_BAD_FILE, "%s, line %" PRId64 ": not JSON: %s", name, corpus->line, error.text);
    SP_REQUIRE(json_is_object(corpus->json), SP_BAD_FILE, "%s, line %" PRId64 ": not a JSON object", name,
               corpus->line);
    const json_t *text = json_object_get(corpus->json, "text");
    SP_REQUIRE(text, SP_BAD_FILE, "%s, line %" PRId64 ": it has no field \"text\"", name, corpus->line);
    SP_REQUIRE(json_is_string(text), SP_BAD_FILE, "%s, line %" PRId64 ": its field \"text\" is not a string", name,
               corpus->line);
    int64_t length = (int64_t)json_string_length(text);
    if (length > 0) *piece = (sp_corpus_piece){json_string_value(text), length, true, true};
    return SP_OK;
}

static sp_status next_json(sp_corpus *corpus, sp_corpus_piece *piece) {
    while (!piece->text) {
        int64_t n_bytes;
        SP_TRY(find_line(corpus, 0, &n_bytes));
        if (n_bytes == 0) return SP_OK;
        const char *line = corpus->buffer + corpus->at;
        corpus->at += n_bytes;
        corpus->line++;
        if (is_blank(line, n_bytes)) continue;
        json_decref(corpus->json);
        SP_TRY(parse_line(corpus, line, n_bytes, piece));
        corpus->file_has_text |= piece->text != NULL;
    }
    return SP_OK;
}

/* ---- files in turn ---- */

static sp_status begin_file(sp_corpus *corpus) {
    sp_corpus_file *file = &corpus->files.items[corpus->file];
    SP_TRY(sp_stream_open(&corpus->stream, file->path));
    corpus->at = 0;
    corpus->end = 0;
    corpus->file_ended = false;
    corpus->line = 0;
    corpus->file_has_text = false;
    while (corpus->end < 3 && !corpus->file_ended) SP_TRY(fill(corpus));
    /* the mark that some editors put before UTF-8 text */
    if (corpus->end >= 3 && memcmp(corpus->buffer, "\xef\xbb\xbf", 3) == 0) corpus->at = 3;
    if (!file->kind_known) {
        bool json = corpus->end > corpus->at && corpus->buffer[corpus->at] == '{';
        file->kind = json ? SP_CORPUS_KIND_JSON_LINES : SP_CORPUS_KIND_TEXT;
        file->kind_known = true;
    }
    return SP_OK;
}

static sp_status end_file(sp_corpus *corpus) {
    SP_REQUIRE(corpus->file_has_text, SP_BAD_FILE, "%s: there is no text in it", file_name(corpus));
    sp_stream_close(corpus->stream);
    corpus->stream = NULL;
    corpus->file++;
    return SP_OK;
}

sp_status sp_corpus_next(sp_corpus *corpus, sp_corpus_piece *piece) {
    *piece = (sp_corpus_piece){0};
    while (corpus->file < corpus->files.n) {
        if (!corpus->stream) SP_TRY(begin_file(corpus));
        bool json = corpus->files.items[corpus->file].kind == SP_CORPUS_KIND_JSON_LINES;
        SP_TRY(json ? next_json(corpus, piece) : next_text(corpus, piece));
        if (piece->text) return SP_OK;
        SP_TRY(end_file(corpus));
    }
    return SP_OK;
}

sp_status sp_corpus_open(sp_corpus **out, const char *const *paths, int64_t n_paths, const sp_corpus_options *options) {
    *out = NULL;
    sp_corpus *corpus = calloc(1, sizeof *corpus);
    SP_REQUIRE(corpus, SP_OUT_OF_MEMORY, "%s: no memory to read it", n_paths > 0 ? paths[0] : "the text");
    sp_status status = SP_OK;
    corpus->options = *options;
    corpus->capacity = 1 << 20;
    corpus->buffer = malloc((size_t)corpus->capacity);
    SP_REQUIRE_OR_DONE(corpus->buffer, SP_OUT_OF_MEMORY, "%s: no memory to read it",
                       n_paths > 0 ? paths[0] : "the text");
    SP_TRY_OR_DONE(sp_corpus_files_find(&corpus->files, paths, n_paths));
    *out = corpus;
    corpus = NULL;
done:
    sp_corpus_close(corpus);
    return status;
}

void sp_corpus_close(sp_corpus *corpus) {
    if (!corpus) return;
    sp_corpus_files_clear(&corpus->files);
    sp_stream_close(corpus->stream);
    json_decref(corpus->json);
    free(corpus->buffer);
    free(corpus);
}

/* ---- the first pass ---- */

/* Where the last line of the piece begins, if text follows it: its offset in the piece, or 0. */
static int64_t last_line_start(const sp_corpus_piece *piece) {
    const char *newline = memrchr(piece->text, '\n', (size_t)(piece->n_bytes - 1));
    return newline ? newline + 1 - piece->text : 0;
}

static void add_facts(sp_corpus_facts *facts, const sp_corpus_piece *piece) {
    if (piece->starts) {
        facts->last_document = facts->n_bytes;
        facts->n_documents++;
    }
    int64_t line = last_line_start(piece);
    if (line > 0) facts->last_line = facts->n_bytes + line;
    facts->n_bytes += piece->n_bytes;
    facts->hash = sp_hash_bytes(facts->hash + piece->starts, piece->text, piece->n_bytes);
}

sp_status sp_corpus_survey(sp_corpus_facts *facts, const char *const *paths, int64_t n_paths,
                           const sp_corpus_options *options, sp_progress_function progress, void *progress_user) {
    *facts = (sp_corpus_facts){0};
    sp_corpus *corpus;
    SP_TRY(sp_corpus_open(&corpus, paths, n_paths, options));
    sp_status status = SP_OK;
    for (int64_t reported = 0;;) {
        sp_corpus_piece piece;
        SP_TRY_OR_DONE(sp_corpus_next(corpus, &piece));
        if (!piece.text) break;
        add_facts(facts, &piece);
        if (!progress || facts->n_bytes - reported < REPORT_BYTES) continue;
        reported = facts->n_bytes;
        SP_REQUIRE_OR_DONE(progress(progress_user, "checking text", reported, -1) == 0, SP_CANCELLED,
                           "reading the text: cancelled");
    }
done:
    sp_corpus_close(corpus);
    return status;
}
