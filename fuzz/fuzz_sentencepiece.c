/* Sentencepiece models, and text through those that are accepted. */
#include "tokenizer_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    try_tokenizer("tokenizer.model", data, n_bytes);
    return 0;
}
