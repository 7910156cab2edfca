/* The reader of safetensors files.  Each input is parsed as it is, and once more behind a length that makes all of it up
 * to its last '}' the header, so that the fuzzer need not guess eight bytes to get at the checks behind them. */
#include "fuzzer.h"

#include <stdlib.h>
#include <string.h>

#include "softpick/checkpoint.h"

static void require(int holds) {
    if (!holds) abort();
}

/* Everything a caller may touch after success: each tensor's first and last byte, each name. */
static void walk(const sp_safetensors *file, const uint8_t *bytes, int64_t n_bytes) {
    int64_t n_data = 0;
    for (int64_t i = 0; i < sp_safetensors_count(file); i++) {
        const sp_tensor *tensor = sp_safetensors_tensor(file, i);
        require(sp_safetensors_find(file, sp_safetensors_name(file, i)) == tensor);
        int64_t size = sp_tensor_count(tensor) * sp_dtype_bytes(tensor->dtype);
        const volatile uint8_t *data = tensor->data;
        if (size > 0) (void)(data[0] + data[size - 1]);
        n_data += size;
    }
    uint64_t length;
    memcpy(&length, bytes, sizeof length);
    require(n_data + 8 + (int64_t)length == n_bytes);
    (void)sp_safetensors_metadata(file, "format");
}

static void parse(const uint8_t *bytes, int64_t n_bytes) {
    sp_safetensors *file;
    sp_status status = sp_safetensors_parse(&file, bytes, n_bytes, "input");
    require((status == SP_OK) == (file != NULL));
    if (file)
        walk(file, bytes, n_bytes);
    else
        require(status == SP_BAD_FILE || status == SP_UNSUPPORTED);
    sp_safetensors_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    parse(data, (int64_t)n_bytes);
    uint64_t n_header = n_bytes;
    while (n_header > 0 && data[n_header - 1] != '}') n_header--;
    if (n_header == 0) return 0;
    uint8_t *framed = malloc(n_bytes + sizeof n_header);
    require(framed != NULL);
    memcpy(framed, &n_header, sizeof n_header);
    memcpy(framed + sizeof n_header, data, n_bytes);
    parse(framed, (int64_t)(n_bytes + sizeof n_header));
    free(framed);
    return 0;
}
