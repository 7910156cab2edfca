/* A vocabulary as sentencepiece, llama2.c and GGUF files hold it: pieces with scores and types. */
#ifndef SP_TEXT_PIECES_H
#define SP_TEXT_PIECES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef enum sp_piece_type { /* sentencepiece's numbers, and GGUF's */
                             SP_PIECE_NORMAL = 1,
                             SP_PIECE_UNKNOWN = 2,
                             SP_PIECE_CONTROL = 3,
                             SP_PIECE_USER_DEFINED = 4,
                             SP_PIECE_UNUSED = 5,
                             SP_PIECE_BYTE = 6,
} sp_piece_type;

typedef struct sp_piece {
    const char *text; /* n_bytes of UTF-8, no 0 behind them; borrowed from the file's bytes */
    int64_t n_bytes;
    float score;
    sp_piece_type type;
} sp_piece;

typedef enum sp_pieces_kind {
    SP_PIECES_SENTENCEPIECE = 0, /* "▁" for spaces, merges by scores, rare characters as byte pieces: "llama" in GGUF */
    SP_PIECES_BYTE_LEVEL = 1,    /* the table of GPT-2, merges given: "gpt2" in GGUF */
} sp_pieces_kind;

typedef struct sp_pieces {
    sp_pieces_kind kind;
    const sp_piece *items; /* by id */
    int64_t n;
    const char *const *merges; /* SP_PIECES_BYTE_LEVEL: "a b", best first, each with a 0 behind it */
    int64_t n_merges;
    const char *splitter;       /* SP_PIECES_BYTE_LEVEL: GGUF's tokenizer.ggml.pre */
    int32_t bos, eos, unk, pad; /* -1: none */
    bool add_bos, add_eos;      /* around every text */
    bool add_space_prefix;      /* SP_PIECES_SENTENCEPIECE: a text gets a space in front */
    bool remove_extra_spaces;   /* SP_PIECES_SENTENCEPIECE: at its ends all, elsewhere all but one */
} sp_pieces;

/* Pieces as a file holds them, and the memory that they lie in. */
typedef struct sp_pieces_file {
    sp_pieces pieces;
    struct sp_gguf *gguf; /* NULL: of another kind */
    void *memory[3];      /* freed with it */
} sp_pieces_file;

/* llama2.c's tokenizer.bin.  `bytes` must outlive it. */
SP_MUST_CHECK sp_status sp_pieces_read_bin(sp_pieces_file *file, const void *bytes, int64_t n_bytes,
                                           const char *source);
/* The vocabulary of a GGUF file. */
SP_MUST_CHECK sp_status sp_pieces_read_gguf(sp_pieces_file *file, const void *bytes, int64_t n_bytes,
                                            const char *source);
void sp_pieces_file_free(sp_pieces_file *file);

/* GGUF's name (tokenizer.ggml.pre) of a splitter by this pattern (NULL: GPT-2's own), digits each alone or not; NULL: none
 * that is known. */
const char *sp_pieces_splitter_name(const char *pattern, bool digits);
/* True for the patterns of splitters that GGUF files have names for. */
bool sp_pieces_know_pattern(const char *pattern);

/* The tree of the tokenizer.json that gives the same tokens; *config, where not NULL, gets that of its
 * tokenizer_config.json.  `source` names the file in messages.  Release both with json_decref. */
SP_MUST_CHECK sp_status sp_pieces_to_json(json_t **json, json_t **config, const sp_pieces *pieces, const char *source);

#endif
