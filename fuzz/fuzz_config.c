/* The reader of config.json: what it accepts is within range, and its own text of it reads back to the same text. */
#define _POSIX_C_SOURCE 200809L
#include "fuzzer.h"

#include <stdlib.h>
#include <string.h>

#include "softpick/model.h"

static void require(int holds) {
    if (!holds) abort();
}

static void check_text_comes_back(const sp_model_config *config) {
    char *first, *second;
    sp_model_config again;
    require(sp_model_config_format(config, &first) == SP_OK);
    require(sp_model_config_parse(&again, first, "own text") == SP_OK);
    require(sp_model_config_format(&again, &second) == SP_OK);
    require(strcmp(first, second) == 0);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    char *text = malloc(n_bytes + 1);
    require(text != NULL);
    memcpy(text, data, n_bytes);
    text[n_bytes] = 0;
    sp_model_config config;
    sp_status status = sp_model_config_parse(&config, text, "input");
    if (status == SP_OK) {
        require(sp_model_config_check(&config) == SP_OK);
        require(sp_model_config_n_parameters(&config) > 0);
        check_text_comes_back(&config);
    } else {
        require(status == SP_BAD_FILE || status == SP_UNSUPPORTED);
        require(strncmp(sp_last_message(), "input: ", 7) == 0 && !strchr(sp_last_message(), '\n'));
    }
    free(text);
    return 0;
}
