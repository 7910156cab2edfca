/* Files of the kind tokenizer.json, and text through the tokenizers that they are. */
#include "tokenizer_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    try_tokenizer("tokenizer.json", data, n_bytes);
    return 0;
}
