/* How tokens become text: a chain of steps, as the "decoder" of a tokenizer.json lists them, worked token by token. */
#ifndef SP_TEXT_DECODER_H
#define SP_TEXT_DECODER_H

#include <jansson.h>
#include <stdbool.h>

#include "softpick/text.h"
#include "text/text_normalizer.h"

typedef enum sp_decode_kind {
    SP_DECODE_REPLACE,       /* rewrites a token by `normalizer` */
    SP_DECODE_BYTE_FALLBACK, /* a run of "<0xHH>" is text if all of it is valid UTF-8, else one U+FFFD each */
    SP_DECODE_BYTE_LEVEL,    /* characters of GPT-2's table are bytes; what is not UTF-8 becomes U+FFFD */
    SP_DECODE_METASPACE,     /* `mark` is a space, and nothing in the first token if `strips_first` */
    SP_DECODE_STRIP,         /* up to `start` and `stop` times `mark` goes from a token's ends */
    SP_DECODE_FUSE,          /* all tokens are one */
    SP_DECODE_SPACES,        /* a space between tokens: what is done where no decoder is given */
    SP_DECODE_PIECES,        /* sentencepiece's own way, where each byte that is not UTF-8 becomes U+FFFD */
} sp_decode_kind;

typedef struct sp_decode_step {
    sp_decode_kind kind;
    sp_text_normalizer *normalizer;
    char mark[5]; /* a character and a 0 */
    int64_t start, stop;
    bool strips_first;
    bool fused; /* all tokens were made one before this step */
} sp_decode_step;

enum { SP_DECODE_STEPS_MAX = 16 };

typedef struct sp_decoding {
    sp_decode_step steps[SP_DECODE_STEPS_MAX];
    int n_steps;
} sp_decoding;

/* `json`: the component "decoder", NULL or null for none.  Free also after a failure. */
SP_MUST_CHECK sp_status sp_decoding_read(sp_decoding *decoding, const json_t *json, const char *source);
void sp_decoding_free(sp_decoding *decoding);

/* The byte that a character of GPT-2's table stands for, -1 for others; and the character (UTF-8, with a 0). */
int sp_byte_level_byte(uint32_t character);
void sp_byte_level_character(uint8_t byte, char text[3]);
/* The byte of "<0xHH>", -1 for other tokens. */
int sp_byte_token(const char *text, int64_t n_bytes);
/* What the characters of a token stand for, one byte each; false, and nothing added, if one is not in the table. */
SP_MUST_CHECK sp_status sp_byte_level_decode(sp_bytes *out, const char *text, int64_t n_bytes, bool *all);

#endif
