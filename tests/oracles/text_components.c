/* One component of a tokenizer.json on texts from stdin, for text_components.py: which builds and runs this.
 *
 *     text_components normalizer|splitter COMPONENT.json
 *
 * A text is its bytes behind their number (4 bytes, little endian); an answer is the number of pieces and each of them in
 * the same way.  A normalizer's answer is one piece. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/splitter.h"
#include "text/text_normalizer.h"

static void die_unless(sp_status status) {
    if (status == SP_OK) return;
    fprintf(stderr, "%s\n", sp_last_message());
    exit(1);
}

static void put(const char *data, int64_t n) {
    uint32_t length = (uint32_t)n;
    fwrite(&length, sizeof length, 1, stdout);
    fwrite(data, 1, (size_t)n, stdout);
}

static void split(const sp_splitter *splitter, sp_bytes *text, sp_spans *pieces) {
    die_unless(sp_splitter_split(splitter, text, true, pieces));
    uint32_t n = (uint32_t)pieces->n;
    fwrite(&n, sizeof n, 1, stdout);
    for (int64_t i = 0; i < pieces->n; i++)
        put(text->data + pieces->items[i].begin, pieces->items[i].end - pieces->items[i].begin);
}

int main(int n_arguments, char **arguments) {
    if (n_arguments != 3) return 2;
    json_t *json;
    sp_splitter *splitter = NULL;
    sp_text_normalizer *normalizer = NULL;
    die_unless(sp_json_read(&json, arguments[2]));
    if (strcmp(arguments[1], "splitter") == 0)
        die_unless(sp_splitter_new(&splitter, json, arguments[2]));
    else
        die_unless(sp_text_normalizer_new(&normalizer, json, arguments[2]));
    sp_bytes text = {0};
    sp_spans pieces = {0};
    uint32_t n, one = 1;
    while (fread(&n, sizeof n, 1, stdin) == 1) {
        text.n = 0;
        die_unless(sp_bytes_reserve(&text, n));
        if (n > 0 && fread(text.data, 1, n, stdin) != n) return 1;
        text.n = n;
        if (splitter) {
            split(splitter, &text, &pieces);
            continue;
        }
        die_unless(sp_text_normalizer_apply(normalizer, &text));
        fwrite(&one, sizeof one, 1, stdout);
        put(text.data, text.n);
    }
    sp_splitter_free(splitter);
    sp_text_normalizer_free(normalizer);
    sp_bytes_free(&text);
    sp_spans_free(&pieces);
    json_decref(json);
    return fflush(stdout) == 0 ? 0 : 1;
}
