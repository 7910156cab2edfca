/* What fuzzers of tokenizer files share: the input becomes a file, is opened, and used if it is a tokenizer. */
#define _GNU_SOURCE
#ifndef TOKENIZER_INPUT_H
#define TOKENIZER_INPUT_H

#include "fuzzer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "softpick/text.h"

static char input_folder[64], input_path[128];

#define require(holds)                                                                                                 \
    do {                                                                                                               \
        if (holds) break;                                                                                              \
        fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #holds, sp_last_message());                            \
        abort();                                                                                                       \
    } while (0)

static inline void remove_input(void) {
    unlink(input_path);
    rmdir(input_folder);
}

static inline void write_input(const char *name, const uint8_t *data, size_t n_bytes) {
    if (!*input_folder) {
        snprintf(input_folder, sizeof input_folder, "%s/softpick-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        require(mkdtemp(input_folder) != NULL);
        snprintf(input_path, sizeof input_path, "%s/%s", input_folder, name);
        atexit(remove_input);
    }
    FILE *file = fopen(input_path, "wb");
    require(file && fwrite(data, 1, n_bytes, file) == n_bytes && fclose(file) == 0);
}

/* Tokens are of the vocabulary, and decoding them at once or one by one is the same. */
static inline void check_tokens(const sp_tokenizer *tokenizer, const int32_t *tokens, int64_t n_tokens) {
    sp_decoder *decoder;
    char *whole;
    const char *part;
    int64_t n_whole, n_part, n = 0;
    for (int64_t i = 0; i < n_tokens; i++) require(sp_tokenizer_piece(tokenizer, tokens[i]) != NULL);
    if (sp_tokenizer_decode(tokenizer, tokens, n_tokens, &whole, &n_whole) != SP_OK) return;
    require(sp_decoder_new(&decoder, tokenizer, true) == SP_OK);
    for (int64_t i = 0; i <= n_tokens; i++) {
        require((i < n_tokens ? sp_decoder_push(decoder, tokens[i], &part, &n_part)
                              : sp_decoder_finish(decoder, &part, &n_part)) == SP_OK);
        require(n + n_part <= n_whole && (n_part == 0 || memcmp(whole + n, part, (size_t)n_part) == 0));
        n += n_part;
    }
    require(n == n_whole);
    sp_decoder_free(decoder);
    free(whole);
}

static inline void use_tokenizer(const sp_tokenizer *tokenizer) {
    static const char *const texts[] = {
        "",
        "a",
        " the river  carries\n\n 1984 stones ",
        "\xe2\x96\x81\xe4\xbd\xa0\xf0\x9f\x98\x80 e\xcc\x81\xc2\xa0\t",
        "\x01",
        "\xe2\x96 \xff\xc3(\xed\xa0\x80\xf0\x9f", /* no UTF-8 */
        "</s><s> <|endoftext|>\r\nisn't aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int32_t *tokens;
        int64_t n_tokens;
        unsigned flags = i % 2 ? SP_ENCODE_SPECIAL : SP_ENCODE_SPECIAL | SP_ENCODE_TEMPLATE;
        sp_status status =
            sp_tokenizer_encode_with(tokenizer, texts[i], (int64_t)strlen(texts[i]), flags, &tokens, &n_tokens);
        require((status == SP_OK) == (tokens != NULL));
        if (status == SP_OK) check_tokens(tokenizer, tokens, n_tokens);
        free(tokens);
    }
}

/* The whole of a fuzzer.  A message is one line and begins with the file. */
static inline void try_tokenizer(const char *name, const uint8_t *data, size_t n_bytes) {
    write_input(name, data, n_bytes);
    sp_tokenizer *tokenizer;
    sp_status status = sp_tokenizer_open(&tokenizer, input_path);
    require((status == SP_OK) == (tokenizer != NULL));
    if (tokenizer)
        use_tokenizer(tokenizer);
    else
        require(strncmp(sp_last_message(), input_path, strlen(input_path)) == 0 && !strchr(sp_last_message(), '\n'));
    sp_tokenizer_free(tokenizer);
}

#endif
