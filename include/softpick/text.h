/* From text to token batches: tokenizers, corpora, token shards, the loader.  May change in any release. */
#ifndef SOFTPICK_TEXT_H
#define SOFTPICK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "softpick/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called now and then in long work; a non-zero return cancels it (SP_CANCELLED).  total < 0: not known. */
typedef int (*sp_progress_function)(void *user, const char *what, int64_t done, int64_t total);

/* ---- tokenizer ---- */

typedef struct sp_tokenizer sp_tokenizer; /* constant after opening: many threads may read it */

/* `path`: a tokenizer.json, a sentencepiece model, llama2.c's tokenizer.bin, a .gguf, or a folder that holds
 * tokenizer.json, or tokenizer.model, or tokenizer.bin (the first of them that is there).  What the files beside it say
 * of special tokens (tokenizer_config.json) is read too. */
SP_API SP_MUST_CHECK sp_status sp_tokenizer_open(sp_tokenizer **out, const char *path);
SP_API void sp_tokenizer_free(sp_tokenizer *tokenizer);
/* The file that was read.  Borrowed. */
SP_API const char *sp_tokenizer_path(const sp_tokenizer *tokenizer);
SP_API int64_t sp_tokenizer_vocabulary(const sp_tokenizer *tokenizer);
/* Ids of the special pieces, -1 when there is none. */
SP_API int32_t sp_tokenizer_bos(const sp_tokenizer *tokenizer);
SP_API int32_t sp_tokenizer_eos(const sp_tokenizer *tokenizer);
/* The piece as it stands in the vocabulary ("▁the"); NULL outside the range.  Borrowed. */
SP_API const char *sp_tokenizer_piece(const sp_tokenizer *tokenizer, int32_t id);

typedef enum sp_encode_flags {
    SP_ENCODE_PLAIN = 0,    /* the text and nothing else: special tokens that stand in it are text */
    SP_ENCODE_SPECIAL = 1,  /* special tokens that stand in the text ("</s>") become their ids */
    SP_ENCODE_TEMPLATE = 2, /* adds what the tokenizer's files say belongs around a text: BOS as a rule */
} sp_encode_flags;

/* Encodes UTF-8.  A text of no tokens gives memory too.  Caller frees *tokens. */
SP_API SP_MUST_CHECK sp_status sp_tokenizer_encode_with(const sp_tokenizer *tokenizer, const char *text,
                                                        int64_t n_bytes, unsigned flags, int32_t **tokens,
                                                        int64_t *n_tokens);
/* The same with SP_ENCODE_PLAIN. */
SP_API SP_MUST_CHECK sp_status sp_tokenizer_encode(const sp_tokenizer *tokenizer, const char *text, int64_t n_bytes,
                                                   int32_t **tokens, int64_t *n_tokens);

typedef struct sp_tokens {
    int32_t *items;
    int64_t n;
} sp_tokens;

/* Encodes n texts by several threads.  Caller frees each out[i].items; all are NULL after a failure. */
SP_API SP_MUST_CHECK sp_status sp_tokenizer_encode_many(const sp_tokenizer *tokenizer, const char *const *texts,
                                                        const int64_t *n_bytes, int64_t n, unsigned flags,
                                                        sp_tokens *out);

/* Decodes to UTF-8 with a 0 after it; special tokens give nothing.  Caller frees *text. */
SP_API SP_MUST_CHECK sp_status sp_tokenizer_decode(const sp_tokenizer *tokenizer, const int32_t *tokens,
                                                   int64_t n_tokens, char **text, int64_t *n_bytes);

typedef struct sp_decoder sp_decoder; /* decodes token by token; borrows the tokenizer */

/* skip_special: special tokens give nothing, else their names. */
SP_API SP_MUST_CHECK sp_status sp_decoder_new(sp_decoder **out, const sp_tokenizer *tokenizer, bool skip_special);
SP_API void sp_decoder_free(sp_decoder *decoder);
/* Adds a token and gives the text that is now certain: whole characters, often none, valid until the next call.  All of
 * it in a row, with what `finish` gives, is what decoding all tokens at once gives. */
SP_API SP_MUST_CHECK sp_status sp_decoder_push(sp_decoder *decoder, int32_t token, const char **text, int64_t *n_bytes);
/* Gives the rest (an unfinished character as U+FFFD); the next push begins a new text. */
SP_API SP_MUST_CHECK sp_status sp_decoder_finish(sp_decoder *decoder, const char **text, int64_t *n_bytes);

/* Writes into `folder` what opening it gives this tokenizer again: its own file, or the tokenizer.json that was made of
 * a tokenizer.bin or a GGUF file, and its tokenizer_config.json.  Files of another tokenizer that lie there go. */
SP_API SP_MUST_CHECK sp_status sp_tokenizer_keep(const sp_tokenizer *tokenizer, const char *folder);
/* The same, and beside a sentencepiece model of kind BPE the tokenizer.json and tokenizer_config.json with which Hugging
 * Face's tokenizers give the same tokens: what belongs into a checkpoint. */
SP_API SP_MUST_CHECK sp_status sp_tokenizer_save(const sp_tokenizer *tokenizer, const char *folder);

/* The tokenizer as keys and values of a GGUF file ("tokenizer.ggml.tokens" ...): the text of one JSON object.  Unused pieces
 * fill it up to the model's `vocabulary`.  Fails with SP_UNSUPPORTED for one that such files have no words for.  Caller
 * frees. */
SP_API SP_MUST_CHECK sp_status sp_tokenizer_gguf(const sp_tokenizer *tokenizer, int64_t vocabulary, char **keys);

typedef struct sp_tokenizer_train_options {
    size_t struct_bytes;
    const char *kind;    /* "bpe" (default) or "unigram" */
    int64_t vocabulary;  /* default 8192; unk 0, bos 1, eos 2, 256 byte pieces included */
    int64_t n_bytes_max; /* text read for training, 0: all; default 64 MiB */
    sp_progress_function progress;
    void *progress_user;
} sp_tokenizer_train_options;

SP_API sp_tokenizer_train_options sp_tokenizer_train_options_default(void);
/* Trains a sentencepiece model with byte fallback on the corpus and writes it to `out_path` atomically. */
SP_API SP_MUST_CHECK sp_status sp_tokenizer_train(const char *out_path, const char *const *paths, int64_t n_paths,
                                                  const sp_tokenizer_train_options *options);

/* ---- corpora and token shards ---- */

/* A corpus is a list of files, folders (searched, in the order of paths, for .txt and .jsonl, each also .gz
 * or .zst) and "-" (standard input: JSON lines if it begins with '{', text otherwise; compressed or not).  A
 * .jsonl line is one document (field "text"; empty ones are passed over), lines end at newline bytes only;
 * any other file is one document. Text is UTF-8 without zero bytes. */
typedef struct sp_shards_write_options {
    size_t struct_bytes;
    double validation_fraction; /* share of the text held out, at the end of the corpus: whole documents, or,
                                   of fewer than 20 documents, lines; 0: no validation split; default 0.05 */
    int64_t document_bytes_max; /* a .txt file longer than this is cut into documents at line ends; 0: never.
                                   default 0 */
    int64_t shard_tokens_max;   /* tokens per shard file; default 2^27 */
    sp_progress_function progress;
    void *progress_user;
} sp_shards_write_options;

SP_API sp_shards_write_options sp_shards_write_options_default(void);
/* Encodes the corpus into `folder`/{train,validation}-00000.tokens ... (format: docs/formats.md): each
 * document as BOS tokens EOS, as far as the tokenizer has them.  Replaces the set that was there; fails, and
 * leaves the folder as it was, on unreadable, empty or binary text and on a full disk.  Memory does not grow
 * with the text. */
SP_API SP_MUST_CHECK sp_status sp_shards_write(const char *folder, const sp_tokenizer *tokenizer,
                                               const char *const *paths, int64_t n_paths,
                                               const sp_shards_write_options *options);

typedef struct sp_shards sp_shards; /* all shards of one split, memory-mapped, as one run of tokens */

/* `split`: "train" or "validation".  Refuses files cut short, of different sets, or encoded with another
 * tokenizer than the tokenizer.model that lies beside them. */
SP_API SP_MUST_CHECK sp_status sp_shards_open(sp_shards **out, const char *folder, const char *split);
SP_API void sp_shards_close(sp_shards *shards);
SP_API int64_t sp_shards_n_tokens(const sp_shards *shards);
SP_API int64_t sp_shards_n_documents(const sp_shards *shards);
SP_API int64_t sp_shards_vocabulary(const sp_shards *shards);
/* Bytes of the text that the tokens stand for: what bits per byte are counted in. */
SP_API int64_t sp_shards_text_bytes(const sp_shards *shards);
/* First token of document i; sp_shards_n_tokens for i = n_documents. */
SP_API int64_t sp_shards_document(const sp_shards *shards, int64_t i);
/* Copies tokens [first, first + n) as int32. */
SP_API SP_MUST_CHECK sp_status sp_shards_read(const sp_shards *shards, int64_t first, int64_t n, int32_t *tokens);

/* ---- batches ---- */

/* How sequences of T tokens are cut from the run of documents. */
typedef enum sp_packing {
    SP_PACKING_BOS = 0,         /* BOS in front of every sequence, then T-1 tokens from anywhere */
    SP_PACKING_CONCATENATE = 1, /* T tokens from anywhere, documents joined by EOS/BOS as stored: the paper's way */
    SP_PACKING_DOCUMENTS = 2,   /* as concatenate, but attention and positions start anew at every document, and
                                 the last token of a document has no target */
} sp_packing;
SP_API const char *sp_packing_name(sp_packing packing);
SP_API SP_MUST_CHECK sp_status sp_packing_find(sp_packing *out, const char *name); /* bos, concatenate, documents */

/* A batch: tokens and what follows them.  target < 0: no loss there. */
typedef struct sp_batch {
    int64_t B, T;
    const int32_t *tokens;  /* (B,T) */
    const int32_t *targets; /* (B,T) */
    const int64_t *cu;      /* NULL, or (n_sequences + 1): starts of documents within the B*T tokens; a row of the
                          batch always starts one */
    int64_t n_sequences;
    /* with cu, and not for a gradient: NULL, or (n_sequences).  Sequence n goes on after the first shared[n] tokens of
     * sequence continues[n], one before it in the batch, which may itself go on after another; -1: it starts anew */
    const int64_t *continues, *shared;
} sp_batch;

typedef struct sp_loader_options {
    size_t struct_bytes;
    int64_t B, T;
    sp_packing packing;
    int32_t bos; /* used by SP_PACKING_BOS */
    uint64_t seed;
    int64_t rank, n_ranks; /* default 0 of 1; ranks read disjoint sequences */
    bool in_order;         /* sequences in the order of the text, without wrapping: for validation */
} sp_loader_options;

SP_API sp_loader_options sp_loader_options_default(void);

typedef struct sp_loader sp_loader; /* its batches are pure functions of (options, shards, step) */

/* Fails when the text is shorter than one sequence. */
SP_API SP_MUST_CHECK sp_status sp_loader_new(sp_loader **out, const sp_shards *shards, /* must outlive the loader */
                                             const sp_loader_options *options);
SP_API void sp_loader_free(sp_loader *loader);
/* Sequences in one pass over the text. */
SP_API int64_t sp_loader_n_sequences(const sp_loader *loader);
/* Fills `batch` with views into the loader, valid until the next call.  Training: any step >= 0; an epoch
 * visits every sequence once, in an order that differs from epoch to epoch; of each step's n_ranks * B
 * sequences rank r takes B from r * B on.  In order: a batch that begins past the end has B = 0, and the last
 * one may hold fewer than B sequences; what is shorter than a sequence at the end of the text is left out. */
SP_API SP_MUST_CHECK sp_status sp_loader_batch(sp_loader *loader, int64_t step, sp_batch *batch);

#ifdef __cplusplus
}
#endif
#endif
