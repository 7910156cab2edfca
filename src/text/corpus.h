/* A corpus as a run of documents, read piece by piece: memory does not grow with the text. */
#ifndef SP_TEXT_CORPUS_H
#define SP_TEXT_CORPUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "softpick/text.h"

typedef enum sp_corpus_kind { SP_CORPUS_KIND_TEXT, SP_CORPUS_KIND_JSON_LINES } sp_corpus_kind;

/* ---- which files (corpus_files.c) ---- */

typedef struct sp_corpus_file {
    char *path; /* "-": standard input */
    sp_corpus_kind kind;
    bool kind_known; /* false for standard input: JSON lines if its first byte is '{' */
} sp_corpus_file;

typedef struct sp_corpus_files {
    sp_corpus_file *items;
    int64_t n, capacity;
} sp_corpus_files;

/* Files as they are named, folders replaced by the readable files below them, sorted by path.  A file that is
 * named itself may have any ending (text then). */
SP_MUST_CHECK sp_status sp_corpus_files_find(sp_corpus_files *files, const char *const *paths, int64_t n_paths);
void sp_corpus_files_clear(sp_corpus_files *files);

/* ---- their documents (corpus.c) ---- */

/* A piece of a document: valid UTF-8 without zero bytes.  A document that is longer than a piece is cut
 * before a newline, so that every piece but the first begins with one. */
typedef struct sp_corpus_piece {
    const char *text; /* NULL at the end of the corpus; valid until the next call */
    int64_t n_bytes;
    bool starts, ends; /* its document */
} sp_corpus_piece;

typedef struct sp_corpus_options {
    int64_t piece_bytes;        /* a piece ends at the first line end from here on; 0: whole documents */
    int64_t document_bytes_max; /* as in sp_shards_write_options */
} sp_corpus_options;

typedef struct sp_corpus sp_corpus;

SP_MUST_CHECK sp_status sp_corpus_open(sp_corpus **out, const char *const *paths, int64_t n_paths,
                                       const sp_corpus_options *options);
SP_MUST_CHECK sp_status sp_corpus_next(sp_corpus *corpus, sp_corpus_piece *piece);
void sp_corpus_close(sp_corpus *corpus);

/* What a first pass over the text finds out: sizes for progress and sampling, and where it may be cut in two. */
typedef struct sp_corpus_facts {
    int64_t n_bytes, n_documents;
    int64_t last_document; /* bytes before the last document */
    int64_t last_line;     /* bytes before the last line that starts inside a document; 0: there is none */
    uint64_t hash;         /* of the text and of where documents start */
} sp_corpus_facts;

SP_MUST_CHECK sp_status sp_corpus_survey(sp_corpus_facts *facts, const char *const *paths, int64_t n_paths,
                                         const sp_corpus_options *options, sp_progress_function progress,
                                         void *progress_user);

#endif
