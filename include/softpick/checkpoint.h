/* safetensors files and checkpoint folders.  May change in any release. */
#ifndef SOFTPICK_CHECKPOINT_H
#define SOFTPICK_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "softpick/status.h"
#include "softpick/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- one safetensors file -------------------------------------------------------------------------------------- */

typedef struct sp_safetensors sp_safetensors; /* a mapped, wholly checked file */

/* Maps the file and makes every check of the format (docs/formats.md); the message names the file and the tensor. */
SP_API SP_MUST_CHECK sp_status sp_safetensors_open(sp_safetensors **out, const char *path);
/* The same on bytes in memory, which must outlive it; `name` stands in messages. */
SP_API SP_MUST_CHECK sp_status sp_safetensors_parse(sp_safetensors **out, const void *data, int64_t n_bytes,
                                                    const char *name);
SP_API void sp_safetensors_close(sp_safetensors *file);
SP_API int64_t sp_safetensors_count(const sp_safetensors *file);
/* i-th tensor, in order of the data: name and view into the map (read-only memory; a tensor that is not aligned in
 * the file is seen through an aligned copy).  Borrowed. */
SP_API const char *sp_safetensors_name(const sp_safetensors *file, int64_t i);
SP_API const sp_tensor *sp_safetensors_tensor(const sp_safetensors *file, int64_t i);
/* NULL when there is none of that name. */
SP_API const sp_tensor *sp_safetensors_find(const sp_safetensors *file, const char *name);
/* Value of a __metadata__ key, NULL when absent. */
SP_API const char *sp_safetensors_metadata(const sp_safetensors *file, const char *key);

typedef struct sp_named_tensor {
    const char *name;
    sp_tensor tensor; /* contiguous */
} sp_named_tensor;

/* Writes a file atomically (temporary name, fsync, rename), metadata {"format":"pt"}, data 8-byte aligned. */
SP_API SP_MUST_CHECK sp_status sp_safetensors_write(const char *path, const sp_named_tensor *tensors,
                                                    int64_t n_tensors);

/* ---- a checkpoint folder: config.json, model.safetensors (or shards with an index), tokenizer, our state -------- */

typedef struct sp_checkpoint sp_checkpoint;

/* Opens a folder: reads config.json, maps model.safetensors, or all shards that model.safetensors.index.json names.
 * Also finds the content where a killed sp_checkpoint_write left it beside `path`.  Or a GGUF file (LLaMA's kind; F32,
 * F16, BF16, Q8_0, Q4_0) or a model of llama2.c (versions 0, 1, 2), which look like the folder of the same model:
 * LLaMA's names, rotary pairs in halves, blocks as f32. */
SP_API SP_MUST_CHECK sp_status sp_checkpoint_open(sp_checkpoint **out, const char *path);
SP_API void sp_checkpoint_close(sp_checkpoint *checkpoint);
SP_API const char *sp_checkpoint_folder(const sp_checkpoint *checkpoint); /* where the files are, or the one file */
SP_API const char *sp_checkpoint_config(const sp_checkpoint *checkpoint); /* a config.json's text, borrowed */
SP_API const char *sp_checkpoint_source(const sp_checkpoint *checkpoint); /* file of the config, for messages */
SP_API int64_t sp_checkpoint_count(const sp_checkpoint *checkpoint);
/* i-th tensor under LLaMA's name, which files with fla's names (model.embeddings.weight, attn_norm, ...) are given as
 * well; fla's old gate_proj that holds gate and up is seen as two tensors. */
SP_API const char *sp_checkpoint_name(const sp_checkpoint *checkpoint, int64_t i);
SP_API const sp_tensor *sp_checkpoint_tensor(const sp_checkpoint *checkpoint, int64_t i);
/* By LLaMA's name; NULL when there is none. */
SP_API const sp_tensor *sp_checkpoint_find(const sp_checkpoint *checkpoint, const char *name);

/* Path of the own tokenizer of the checkpoint at `path`, for sp_tokenizer_open: the folder, if it holds one, the GGUF file,
 * if it has a vocabulary, and beside a model of llama2.c, NAME.bin, NAME.tokenizer.bin or tokenizer.bin.  *tokenizer NULL:
 * there is none.  Caller frees. */
SP_API SP_MUST_CHECK sp_status sp_checkpoint_find_tokenizer(char **tokenizer, const char *path);

/* What goes into a checkpoint folder. */
typedef struct sp_checkpoint_content {
    const char *config;             /* text of config.json */
    const sp_named_tensor *tensors; /* model.safetensors */
    int64_t n_tensors;
    sp_dtype dtype;                 /* tensors of f32 are written as this: f32 (0), bf16 or f16 */
    int64_t shard_bytes_max;        /* 0: one file */
    const char *state;              /* text of training.json; NULL: none */
    const sp_named_tensor *moments; /* training.safetensors; with `state` */
    int64_t n_moments;
    /* Adds files of the caller's (the tokenizer's) to the folder before it gets its name; NULL: none. */
    sp_status (*add_files)(void *user, const char *folder);
    void *user;
    bool fla_names; /* the tensors, given under LLaMA's names, get flash-linear-attention's */
    bool replace;   /* an existing checkpoint (or empty folder) of that name is replaced; otherwise it is an error */
} sp_checkpoint_content;

/* Writes `folder` so that at any moment it is either absent (or the old one) or complete: everything goes to a
 * temporary folder beside it, is synced, then renamed. */
SP_API SP_MUST_CHECK sp_status sp_checkpoint_write(const char *folder, const sp_checkpoint_content *content);

/* ---- one file, for other programs -------------------------------------------------------------------------------- */

/* Writes a GGUF file, matrices in `format` ("f32", "f16", "bf16", "q8_0"), vectors as f32.  Of the content only config
 * (as sp_model_config_format writes it), tensors (f32) and `replace` are used.  LLaMA, Qwen2 and Qwen3 as such; a model
 * that other programs would run differently gets the architecture "softpick-llama", which they refuse.
 * `vocabulary`: what sp_tokenizer_gguf gave, or NULL. */
SP_API SP_MUST_CHECK sp_status sp_checkpoint_write_gguf(const char *path, const sp_checkpoint_content *content,
                                                        const char *format, const char *vocabulary);
/* Writes a model of llama2.c: `format` "f32" (version 0, for run.c) or "q8_0" (version 2, for runq.c).  SP_UNSUPPORTED
 * for a model that those programs would run differently: they know softmax alone. */
SP_API SP_MUST_CHECK sp_status sp_checkpoint_write_llama2c(const char *path, const sp_checkpoint_content *content,
                                                           const char *format);
/* The tokenizer.bin that goes with it. */
SP_API SP_MUST_CHECK sp_status sp_checkpoint_write_llama2c_tokenizer(const char *path, const char *vocabulary);

/* ---- the checkpoints of a run ------------------------------------------------------------------------------------- */

/* Path of the newest complete checkpoint run/step-XXXXXXXX; *folder NULL if there is none.  Caller frees.  A newer one
 * that does not open is passed over with a warning in the log. */
SP_API SP_MUST_CHECK sp_status sp_checkpoint_newest(const char *run_folder, char **folder);
typedef struct sp_checkpoint_step {
    int64_t step;
    char *folder;
} sp_checkpoint_step;
/* All complete checkpoints of a run, oldest first; `n` is 0 if there is none.  Free with sp_checkpoint_list_free. */
SP_API SP_MUST_CHECK sp_status sp_checkpoint_list(const char *run_folder, sp_checkpoint_step **steps, int64_t *n);
SP_API void sp_checkpoint_list_free(sp_checkpoint_step *steps, int64_t n);
/* Removes all but the newest `keep` (>= 1) complete checkpoints of a run, and temporary folders that a killed run
 * left.  Not while another process writes into the run. */
SP_API SP_MUST_CHECK sp_status sp_checkpoint_prune(const char *run_folder, int64_t keep);

#ifdef __cplusplus
}
#endif
#endif
