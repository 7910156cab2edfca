/* llama2.c's tokenizer.bin, and text through those that are accepted. */
#include "tokenizer_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    try_tokenizer("tokenizer.bin", data, n_bytes);
    return 0;
}
