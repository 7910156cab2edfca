/* tokenizer.json: small tokenizers of each family give what Hugging Face's tokenizers give (vectors/tokenizers.json, by
 * vectors/make_tokenizers.py); text comes out as tokens come in; what is not known or damaged is refused by its name. */
#include "text_fixture.h"

#include "base/json.h"
#include "formats/gguf.h"
#include "text/stream.h"
#include "text/tokenizer.h"

static const char *vector_path(const char *name) {
    static char path[4096];
    const char *slash = strrchr(__FILE__, '/');
    snprintf(path, sizeof path, "%.*s/vectors/%s", slash ? (int)(slash - __FILE__) : 1, slash ? __FILE__ : ".", name);
    return path;
}

static sp_tokenizer *open_family(const char *name) {
    char file[128];
    sp_tokenizer *tokenizer;
    snprintf(file, sizeof file, "tokenizer/%s.json", name);
    assert_ok(sp_tokenizer_open(&tokenizer, vector_path(file)));
    return tokenizer;
}

/* ---- against Hugging Face's tokenizers ---- */

static void check_tokens(const sp_tokenizer *tokenizer, const json_t *item, const char *key, unsigned flags) {
    const json_t *text = json_object_get(item, "text"), *ids = json_object_get(item, key);
    int32_t *tokens;
    int64_t n;
    assert_ok(sp_tokenizer_encode_with(tokenizer, json_string_value(text), (int64_t)json_string_length(text), flags,
                                       &tokens, &n));
    bool same = n == (int64_t)json_array_size(ids);
    for (int64_t i = 0; same && i < n; i++) same = tokens[i] == json_integer_value(json_array_get(ids, (size_t)i));
    if (!same) {
        printf("%s, %s:", json_string_value(text), key);
        for (int64_t i = 0; i < n; i++) printf(" %" PRId32, tokens[i]);
        fail_msg(" are not the tokens expected");
    }
    free(tokens);
}

/* Pushes token by token: every part is whole characters. */
static void check_text(const sp_tokenizer *tokenizer, const json_t *ids, const json_t *expected, bool skip_special) {
    sp_decoder *decoder;
    char text[8192];
    int64_t n = 0, n_part;
    const char *part;
    assert_ok(sp_decoder_new(&decoder, tokenizer, skip_special));
    for (size_t i = 0; i <= json_array_size(ids); i++) {
        if (i < json_array_size(ids))
            assert_ok(sp_decoder_push(decoder, (int32_t)json_integer_value(json_array_get(ids, i)), &part, &n_part));
        else
            assert_ok(sp_decoder_finish(decoder, &part, &n_part));
        assert_true(n + n_part < (int64_t)sizeof text);
        memcpy(text + n, part, (size_t)n_part);
        n += n_part;
        json_t *whole = json_stringn(part, (size_t)n_part); /* NULL: not UTF-8 */
        assert_non_null(whole);
        json_decref(whole);
    }
    text[n] = 0;
    assert_string_equal(text, json_string_value(expected));
    sp_decoder_free(decoder);
}

/* The tokenizer of a family, with another decoder. */
static sp_tokenizer *open_with_decoder(const json_t *family) {
    sp_tokenizer *tokenizer;
    json_t *tree;
    char file[128];
    snprintf(file, sizeof file, "tokenizer/%s.json", json_string_value(json_object_get(family, "tokenizer")));
    assert_ok(sp_json_read(&tree, vector_path(file)));
    json_object_set(tree, "decoder", json_object_get(family, "decoder"));
    assert_ok(sp_json_write(at("decoder.json"), tree));
    json_decref(tree);
    assert_ok(sp_tokenizer_open(&tokenizer, at("decoder.json")));
    return tokenizer;
}

static void check_family(const json_t *family) {
    bool other = json_object_get(family, "decoder");
    sp_tokenizer *tokenizer =
        other ? open_with_decoder(family) : open_family(json_string_value(json_object_get(family, "tokenizer")));
    const json_t *item;
    size_t i;
    json_array_foreach(json_object_get(family, "encode"), i, item) {
        check_tokens(tokenizer, item, "plain", SP_ENCODE_PLAIN);
        check_tokens(tokenizer, item, "special", SP_ENCODE_SPECIAL);
        check_tokens(tokenizer, item, "template", SP_ENCODE_SPECIAL | SP_ENCODE_TEMPLATE);
    }
    assert_true(i > 15 || other);
    json_array_foreach(json_object_get(family, "decode"), i, item) {
        const json_t *ids = json_object_get(item, "ids");
        check_text(tokenizer, ids, json_object_get(item, "text"), true);
        check_text(tokenizer, ids, json_object_get(item, "all"), false);
    }
    assert_true(i > 15);
    sp_tokenizer_free(tokenizer);
}

static void families_agree_with_hugging_face(void **state) {
    (void)state;
    json_t *families, *family;
    size_t i;
    assert_ok(sp_json_read(&families, vector_path("tokenizers.json")));
    json_array_foreach(families, i, family) check_family(family);
    assert_int_equal(i, 15);
    json_decref(families);
}

/* ---- chunks and threads ---- */

static void check_many(const char *name, const char *text) {
    enum { N = 40 };
    sp_tokenizer *tokenizer = open_family(name);
    const char *texts[N];
    int64_t bytes[N], n = (int64_t)strlen(text);
    sp_tokens out[N];
    for (int i = 0; i < N; i++) {
        texts[i] = text + i * 7;
        bytes[i] = n - i * 7;
    }
    assert_ok(sp_tokenizer_encode_many(tokenizer, texts, bytes, N, 0, out));
    for (int i = 0; i < N; i++) { /* without a cut: as one chunk of a tokenizer that may not cut */
        int32_t *tokens;
        int64_t n_tokens;
        bool cuts = tokenizer->cuts, cuts_after_letters = tokenizer->cuts_after_letters;
        assert_true(cuts || cuts_after_letters);
        tokenizer->cuts = tokenizer->cuts_after_letters = false;
        assert_ok(sp_tokenizer_encode(tokenizer, texts[i], bytes[i], &tokens, &n_tokens));
        tokenizer->cuts = cuts;
        tokenizer->cuts_after_letters = cuts_after_letters;
        assert_int_equal(out[i].n, n_tokens);
        assert_memory_equal(out[i].items, tokens, (size_t)n_tokens * sizeof *tokens);
        free(out[i].items);
        free(tokens);
    }
    sp_tokenizer_free(tokenizer);
}

static void chunks_change_no_token(void **state) {
    (void)state;
    static const char *const names[] = {"gpt2", "neox", "smollm", "llama3", "llama2", "llama2_metaspace"};
    char *lines = make_lines(4, 900);
    for (int64_t i = 500; lines[i + 16]; i += 997) memcpy(lines + i, " \n\n\nx\n y\n1\n", 11);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_many(names[i], lines);
    free(lines);
}

static void long_word_is_merged_as_short_ones_are(void **state) {
    (void)state;
    sp_tokenizer *tokenizer = open_family("llama2");
    char word[3000];
    int32_t *tokens, *first;
    int64_t n, n_first;
    for (size_t i = 0; i < sizeof word; i += 6) memcpy(word + i, "slowly", 6);
    assert_ok(sp_tokenizer_encode(tokenizer, word, 30, &first, &n_first));
    assert_ok(sp_tokenizer_encode(tokenizer, word, sizeof word, &tokens, &n));
    assert_memory_equal(tokens, first, (size_t)(n_first - 2) * sizeof *tokens);
    char *back;
    int64_t n_bytes;
    assert_ok(sp_tokenizer_decode(tokenizer, tokens, n, &back, &n_bytes));
    assert_int_equal(n_bytes, sizeof word);
    assert_memory_equal(back, word, sizeof word);
    free(back);
    free(first);
    free(tokens);
    sp_tokenizer_free(tokenizer);
}

static void text_that_is_not_utf8_is_refused(void **state) {
    (void)state;
    sp_tokenizer *tokenizer = open_family("gpt2");
    int32_t *tokens;
    int64_t n;
    assert_fails(sp_tokenizer_encode(tokenizer, "abc\xff", 4, &tokens, &n), SP_BAD_ARGUMENT, "not UTF-8 at byte 3");
    assert_null(tokens);
    assert_ok(sp_tokenizer_encode(tokenizer, "a\0b", 3, &tokens, &n));
    assert_int_equal(n, 3);
    free(tokens);
    sp_tokenizer_free(tokenizer);
}

/* ---- special tokens ---- */

static void write_tree(const char *name, const char *family) {
    char *text, file[128];
    int64_t n_bytes;
    snprintf(file, sizeof file, "tokenizer/%s.json", family);
    assert_ok(sp_file_read(vector_path(file), &text, &n_bytes));
    put(name, text, n_bytes);
    free(text);
}

static void config_beside_tells_of_special_tokens(void **state) {
    (void)state;
    sp_tokenizer *tokenizer = open_family("gpt2");
    assert_int_equal(sp_tokenizer_bos(tokenizer), 0);
    assert_int_equal(sp_tokenizer_eos(tokenizer), 0);
    sp_tokenizer_free(tokenizer);
    tokenizer = open_family("llama3");
    assert_int_equal(sp_tokenizer_bos(tokenizer), 0);
    assert_int_equal(sp_tokenizer_eos(tokenizer), 1);
    sp_tokenizer_free(tokenizer);

    assert_ok(sp_folder_make(at("configured")));
    write_tree("configured/tokenizer.json", "smollm");
    put_text("configured/tokenizer_config.json", "{\"bos_token\": {\"content\": \"<|im_start|>\"}, \"eos_token\": "
                                                 "\"<|im_end|>\", \"add_bos_token\": false, \"add_eos_token\": true}");
    assert_ok(sp_tokenizer_open(&tokenizer, at("configured")));
    assert_int_equal(sp_tokenizer_bos(tokenizer), 1);
    assert_int_equal(sp_tokenizer_eos(tokenizer), 2);
    int32_t *tokens;
    int64_t n;
    assert_ok(sp_tokenizer_encode_with(tokenizer, "", 0, SP_ENCODE_TEMPLATE, &tokens, &n));
    assert_int_equal(n, 1);
    assert_int_equal(tokens[0], 2);
    free(tokens);

    assert_ok(sp_folder_make(at("kept")));
    put_text("kept/tokenizer.model", "another's");
    assert_ok(sp_tokenizer_keep(tokenizer, at("kept")));
    assert_false(sp_file_exists(at("kept/tokenizer.model")));
    sp_tokenizer *kept;
    assert_ok(sp_tokenizer_open(&kept, at("kept")));
    assert_true(sp_tokenizer_hash(kept) == sp_tokenizer_hash(tokenizer));
    assert_int_equal(sp_tokenizer_eos(kept), 2);
    sp_tokenizer_free(kept);
    sp_tokenizer_free(tokenizer);
}

/* ---- what is refused ---- */

#define MODEL(more)                                                                                                    \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\",\"b\"]]" more "}"
#define WITH(part)       "{" part "," MODEL("") "}"
#define MODEL_ONLY(more) "{" MODEL(more) "}"
#define VOCAB(vocab)     "{\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":[]}}"
#define MERGES(merges)   "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":" merges "}}"

static void unknown_components_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *text, *words;
        sp_status status;
    } cases[] = {
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "model 'Unigram' is not supported (BPE is)",
         SP_UNSUPPORTED},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "'WordPiece'", SP_UNSUPPORTED},
        {WITH("\"normalizer\":{\"type\":\"Shout\"}"), "Shout", SP_UNSUPPORTED},
        {WITH("\"pre_tokenizer\":{\"type\":\"Guess\"}"), "Guess", SP_UNSUPPORTED},
        {WITH("\"post_processor\":{\"type\":\"Frame\"}"), "the post_processor Frame is not supported", SP_UNSUPPORTED},
        {WITH("\"decoder\":{\"type\":\"WordPiece\"}"), "the decoder WordPiece is not supported", SP_UNSUPPORTED},
        {WITH("\"decoder\":{\"decoders\":[]}"), "a decoder is not an object with a \"type\"", SP_BAD_FILE},
        {MODEL_ONLY(",\"dropout\":0.1"), "dropout", SP_UNSUPPORTED},
        {MODEL_ONLY(",\"byte_fallback\":3"), "model.byte_fallback", SP_BAD_FILE},
        {MODEL_ONLY(",\"unk_token\":\"c\""), "unk_token 'c' is not in the vocabulary", SP_BAD_FILE},
        {"{}", "model", SP_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "model.vocab is no object", SP_BAD_FILE},
        {VOCAB("{\"a\":-1}"), "'a' has no id", SP_BAD_FILE},
        {VOCAB("{\"a\":1.5}"), "'a' has no id", SP_BAD_FILE},
        {VOCAB("{\"a\":2000000000}"), "id 2000000000 is far above", SP_BAD_FILE},
        {VOCAB("{}"), "no tokens", SP_BAD_FILE},
        {MERGES("[[\"a\"]]"), "model.merges[0] is neither", SP_BAD_FILE},
        {MERGES("[\"a b\",\"a  b\"]"), "model.merges[1] is neither", SP_BAD_FILE},
        {MERGES("[[\"a\",\"c\"]]"), "model.merges[0]: 'c' is not in the vocabulary", SP_BAD_FILE},
        {MERGES("[[\"b\",\"a\"]]"), "model.merges[0]: 'ba' is not in the vocabulary", SP_BAD_FILE},
        {MERGES("7"), "model.merges is no list", SP_BAD_FILE},
        {WITH("\"added_tokens\":[{\"content\":\"x\"}]"), "added_tokens[0]", SP_BAD_FILE},
        {WITH("\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]"), "'a' has id 1, but 0", SP_BAD_FILE},
        {WITH("\"added_tokens\":5"), "added_tokens is no list", SP_BAD_FILE},
        {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[],\"special_tokens\":{}}"),
         "does not name it", SP_BAD_FILE},
        {WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",9],\"sep\":[\"x\",9]}"),
         "token 9 is outside", SP_BAD_FILE},
        {"{\"model\":", "tokenizer.json", SP_BAD_FILE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sp_tokenizer *none;
        const char *path = put_text("tokenizer.json", cases[i].text);
        assert_fails(sp_tokenizer_open(&none, path), cases[i].status, cases[i].words);
        assert_non_null(strstr(sp_last_message(), "tokenizer.json"));
        assert_null(none);
    }
}

/* ---- llama2.c's tokenizer.bin ---- */

typedef struct bin_piece {
    const char *text;
    float score;
} bin_piece;

static const char *write_bin(const char *name, const bin_piece *pieces, int n) {
    char bytes[1024];
    int64_t at_byte = 4;
    memcpy(bytes, (int32_t[]){7}, 4);
    for (int i = 0; i < n; i++) {
        int32_t length = (int32_t)strlen(pieces[i].text);
        memcpy(bytes + at_byte, &pieces[i].score, 4);
        memcpy(bytes + at_byte + 4, &length, 4);
        memcpy(bytes + at_byte + 8, pieces[i].text, (size_t)length);
        at_byte += 8 + length;
    }
    return put(name, bytes, at_byte);
}

static const bin_piece few[] = {
    {"<unk>", 0}, {"\n<s>\n", 0}, {"\n</s>\n", 0}, {"<0x0A>", 0}, {" ", -9},  {"a", -9},
    {"b", -9},    {"ab", -1},     {" a", -2},      {" ab", -3},   {"ba", -4},
};
enum { N_FEW = sizeof few / sizeof *few };

static void check_ids(const sp_tokenizer *tokenizer, const char *text, unsigned flags, const int32_t *ids,
                      int64_t n_ids) {
    int32_t *tokens;
    int64_t n;
    assert_ok(sp_tokenizer_encode_with(tokenizer, text, (int64_t)strlen(text), flags, &tokens, &n));
    assert_int_equal(n, n_ids);
    assert_memory_equal(tokens, ids, (size_t)n * sizeof *ids);
    free(tokens);
}

static void tokenizer_bin_is_read(void **state) {
    (void)state;
    sp_tokenizer *tokenizer, *again;
    assert_ok(sp_tokenizer_open(&tokenizer, write_bin("tokenizer.bin", few, N_FEW)));
    assert_int_equal(sp_tokenizer_vocabulary(tokenizer), N_FEW);
    assert_int_equal(sp_tokenizer_bos(tokenizer), 1);
    assert_int_equal(sp_tokenizer_eos(tokenizer), 2);
    assert_string_equal(sp_tokenizer_piece(tokenizer, 1), "<s>");
    assert_string_equal(sp_tokenizer_piece(tokenizer, 9), "\xe2\x96\x81"
                                                          "ab");
    check_ids(tokenizer, "ab", 0, (int32_t[]){9}, 1); /* a b, then the space */
    check_ids(tokenizer, "aba\n</s>", 0, (int32_t[]){9, 5, 3, 0}, 4);
    check_ids(tokenizer, "a</s>", SP_ENCODE_SPECIAL | SP_ENCODE_TEMPLATE, (int32_t[]){1, 8, 2}, 3);
    assert_ok(sp_folder_make(at("from-bin")));
    assert_ok(sp_tokenizer_save(tokenizer, at("from-bin")));
    assert_ok(sp_tokenizer_open(&again, at("from-bin")));
    assert_true(sp_tokenizer_hash(again) == sp_tokenizer_hash(tokenizer));
    check_ids(again, "aba", SP_ENCODE_TEMPLATE, (int32_t[]){1, 9, 5}, 3);
    sp_tokenizer_free(again);
    sp_tokenizer_free(tokenizer);
}

static void damaged_tokenizer_bin_is_refused(void **state) {
    (void)state;
    sp_tokenizer *none;
    char *bytes;
    int64_t n_bytes;
    assert_ok(sp_file_read(write_bin("whole.bin", few, N_FEW), &bytes, &n_bytes));
    assert_fails(sp_tokenizer_open(&none, put("cut.bin", bytes, n_bytes - 1)), SP_BAD_FILE, "piece 10 is cut short");
    assert_fails(sp_tokenizer_open(&none, put("none.bin", bytes, 4)), SP_BAD_FILE, "no pieces");
    memcpy(bytes + 8, (int32_t[]){-1}, 4);
    assert_fails(sp_tokenizer_open(&none, put("negative.bin", bytes, n_bytes)), SP_BAD_FILE, "piece 0 is cut short");
    free(bytes);
    bin_piece twice[N_FEW];
    memcpy(twice, few, sizeof few);
    twice[10] = twice[9];
    assert_fails(sp_tokenizer_open(&none, write_bin("twice.bin", twice, N_FEW)), SP_BAD_FILE,
                 "pieces 9 and 10 are both");
}

/* ---- a sentencepiece model as tokenizer.json ---- */

static void saved_sentencepiece_model_gives_the_same_tokens(void **state) {
    (void)state;
    sp_tokenizer *model = make_tokenizer("pieces.model", 320), *json;
    assert_ok(sp_folder_make(at("saved")));
    assert_ok(sp_tokenizer_save(model, at("saved")));
    assert_true(sp_file_exists(at("saved/tokenizer.model")));
    assert_ok(sp_tokenizer_open(&json, at("saved")));
    assert_non_null(strstr(sp_tokenizer_path(json), "tokenizer.json"));
    assert_int_equal(sp_tokenizer_bos(json), 1);
    char *lines = make_lines(77, 400);
    memcpy(lines + 100, "  \xe2\x96\x81 \n\n <s>x", 14);
    int32_t *a, *b;
    int64_t n_a, n_b;
    for (unsigned flags = 0; flags < 4; flags += 2) {
        assert_ok(sp_tokenizer_encode_with(model, lines, (int64_t)strlen(lines), flags, &a, &n_a));
        assert_ok(sp_tokenizer_encode_with(json, lines, (int64_t)strlen(lines), flags, &b, &n_b));
        assert_int_equal(n_a, n_b);
        assert_memory_equal(a, b, (size_t)n_a * sizeof *a);
        free(a);
        free(b);
    }
    free(lines);
    sp_tokenizer_free(json);
    sp_tokenizer_free(model);
}

/* ---- GGUF ---- */

/* The pieces of `few` as a GGUF file. */
static const char *write_gguf(const char *name, const char *model, const char *pre) {
    const char *texts[N_FEW] = {"<unk>",
                                "<s>",
                                "</s>",
                                "<0x0A>",
                                "\xe2\x96\x81",
                                "a",
                                "b",
                                "ab",
                                "\xe2\x96\x81"
                                "a",
                                "\xe2\x96\x81"
                                "ab",
                                "ba"};
    int32_t types[N_FEW] = {2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1};
    float scores[N_FEW];
    sp_gguf_writer *writer;
    for (int i = 0; i < N_FEW; i++) scores[i] = few[i].score;
    assert_ok(sp_gguf_writer_new(&writer, at(name)));
    assert_ok(sp_gguf_add_text(writer, "general.architecture", "llama"));
    assert_ok(sp_gguf_add_text(writer, "tokenizer.ggml.model", model));
    assert_ok(sp_gguf_add_text(writer, "tokenizer.ggml.pre", pre));
    assert_ok(sp_gguf_add_texts(writer, "tokenizer.ggml.tokens", texts, N_FEW));
    assert_ok(sp_gguf_add_f32s(writer, "tokenizer.ggml.scores", scores, N_FEW));
    assert_ok(sp_gguf_add_i32s(writer, "tokenizer.ggml.token_type", types, N_FEW));
    assert_ok(sp_gguf_add_texts(writer, "tokenizer.ggml.merges", (const char *[]){"a b"}, 1));
    assert_ok(sp_gguf_add_u32(writer, "tokenizer.ggml.bos_token_id", 1));
    assert_ok(sp_gguf_add_u32(writer, "tokenizer.ggml.eos_token_id", 2));
    assert_ok(sp_gguf_add_flag(writer, "tokenizer.ggml.add_eos_token", true));
    assert_ok(sp_gguf_writer_finish(writer));
    sp_gguf_writer_free(writer);
    return at(name);
}

static void vocabulary_of_gguf_is_read(void **state) {
    (void)state;
    sp_tokenizer *tokenizer;
    assert_ok(sp_tokenizer_open(&tokenizer, write_gguf("pieces.gguf", "llama", "default")));
    check_ids(tokenizer, "aba", SP_ENCODE_TEMPLATE, (int32_t[]){1, 9, 5, 2}, 4);
    sp_tokenizer_free(tokenizer);
    assert_ok(sp_tokenizer_open(&tokenizer, write_gguf("bytes.gguf", "gpt2", "gpt-2")));
    check_ids(tokenizer, "aba", SP_ENCODE_PLAIN, (int32_t[]){7, 5}, 2);
    sp_tokenizer_free(tokenizer);
    assert_fails(sp_tokenizer_open(&tokenizer, write_gguf("other.gguf", "gpt2", "tekken")), SP_UNSUPPORTED,
                 "tokenizer.ggml.pre 'tekken' is not supported");
    assert_fails(sp_tokenizer_open(&tokenizer, write_gguf("kind.gguf", "bert", "default")), SP_UNSUPPORTED,
                 "tokenizer.ggml.model 'bert' is not supported");
}

/* ---- llama.cpp's vectors ---- */

/* The data's file, without the compression of those that end in .zst. */
static const char *unpacked(const char *name, const char *as) {
    sp_stream *stream;
    sp_bytes bytes = {0};
    int64_t n;
    assert_ok(sp_stream_open(&stream, data_file(name)));
    do {
        assert_ok(sp_bytes_reserve(&bytes, 1 << 16));
        assert_ok(sp_stream_read(stream, bytes.data + bytes.n, 1 << 16, &n));
        bytes.n += n;
    } while (n > 0);
    sp_stream_close(stream);
    const char *path = put(as, bytes.data, bytes.n);
    sp_bytes_free(&bytes);
    return path;
}

static void check_vectors(const char *tokenizer_path, const char *name) {
    static const char between[] = "\n__ggml_vocab_test__\n";
    char file[256], *inputs, *outputs;
    sp_tokenizer *tokenizer;
    assert_ok(sp_tokenizer_open(&tokenizer, tokenizer_path));
    snprintf(file, sizeof file, "tokenizer/llamacpp-vectors/ggml-vocab-%s.gguf.inp", name);
    assert_ok(sp_file_read(data_file(file), &inputs, NULL));
    memcpy(file + strlen(file) - 3, "out", 3);
    assert_ok(sp_file_read(data_file(file), &outputs, NULL));
    int n = 0;
    char *input = inputs, *output = outputs;
    for (char *end; (end = strstr(input, between)); input = end + sizeof between - 1, n++) {
        int32_t ids[1024];
        int64_t n_ids = 0;
        for (; *output != '\n'; n_ids++) ids[n_ids] = (int32_t)strtol(output, &output, 10);
        output++;
        *end = 0;
        check_ids(tokenizer, input, SP_ENCODE_PLAIN, ids, n_ids);
    }
    assert_true(n >= 46);
    free(inputs);
    free(outputs);
    sp_tokenizer_free(tokenizer);
}

static void published_ids_come_from_every_form(void **state) {
    (void)state;
    check_vectors(data_file("tokenizer/llama2/tokenizer.bin"), "llama-spm");
    check_vectors(data_file("tokenizer/llamacpp-vectors/ggml-vocab-llama-spm.gguf"), "llama-spm");
    check_vectors(unpacked("tokenizer/llama2/tokenizer.json.zst", "llama2.json"), "llama-spm");
    check_vectors(unpacked("tokenizer/gpt2/tokenizer.json.zst", "gpt2.json"), "gpt-2");
    check_vectors(unpacked("tokenizer/llamacpp-vectors/ggml-vocab-gpt-2.gguf.zst", "gpt2.gguf"), "gpt-2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_agree_with_hugging_face),
        cmocka_unit_test(chunks_change_no_token),
        cmocka_unit_test(long_word_is_merged_as_short_ones_are),
        cmocka_unit_test(text_that_is_not_utf8_is_refused),
        cmocka_unit_test(config_beside_tells_of_special_tokens),
        cmocka_unit_test(unknown_components_are_refused_by_name),
        cmocka_unit_test(tokenizer_bin_is_read),
        cmocka_unit_test(damaged_tokenizer_bin_is_refused),
        cmocka_unit_test(saved_sentencepiece_model_gives_the_same_tokens),
        cmocka_unit_test(vocabulary_of_gguf_is_read),
        cmocka_unit_test(published_ids_come_from_every_form),
    };
    return cmocka_run_group_tests_name("text tokenizer.json", tests, make_test_folder, remove_test_folder);
}
