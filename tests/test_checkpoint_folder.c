/* Checkpoint folders: what is written is read back, others' names and shards are understood, damage is refused by name
 * and leaves everything as it was. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/mount.h>
#include <sys/stat.h>

#include "checkpoint_support.h"

enum { N_TENSORS = 4, N_NUMBERS = 24 };

static const char config[] = "{\"model_type\":\"llama\"}";
static float numbers[N_TENSORS][N_NUMBERS];

/* N_TENSORS tensors (4,6) f32 of those names, tensor i filled from seed i. */
static void make_tensors(sp_named_tensor *out, const char *const *names) {
    for (int i = 0; i < N_TENSORS; i++) {
        fill(numbers[i], sizeof numbers[i], (uint64_t)i);
        out[i] = (sp_named_tensor){names[i], sp_tensor_view(numbers[i], SP_DTYPE_F32, 2, (int64_t[]){4, 6})};
    }
}

static const char *const llama_names[N_TENSORS] = {
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.11.post_attention_layernorm.weight",
};

static sp_checkpoint_content make_content(sp_named_tensor *tensors, const char *const *names) {
    make_tensors(tensors, names);
    return (sp_checkpoint_content){.config = config, .tensors = tensors, .n_tensors = N_TENSORS};
}

static void assert_message_has(const char *part) {
    if (!strstr(sp_last_message(), part) || strchr(sp_last_message(), '\n'))
        fail_msg("message \"%s\" should name \"%s\"", sp_last_message(), part);
}

/* The folder opens and answers to LLaMA's names with the numbers of make_tensors. */
static void assert_holds_tensors(const char *folder) {
    sp_checkpoint *checkpoint;
    if (sp_checkpoint_open(&checkpoint, folder) != SP_OK) fail_msg("%s", sp_last_message());
    assert_int_equal(sp_checkpoint_count(checkpoint), N_TENSORS);
    for (int i = 0; i < N_TENSORS; i++) {
        const sp_tensor *tensor = sp_checkpoint_find(checkpoint, llama_names[i]);
        assert_non_null(tensor);
        assert_int_equal(tensor->shape[1], 6);
        assert_true(holds(tensor, (uint64_t)i));
    }
    assert_null(sp_checkpoint_find(checkpoint, "model.norm.weight"));
    assert_string_equal(sp_checkpoint_config(checkpoint), config);
    sp_checkpoint_close(checkpoint);
}

static void assert_absent(const char *path) {
    struct stat facts;
    assert_int_equal(lstat(path, &facts), -1);
}

static void assert_nothing_beside(const char *folder) {
    char beside[4096];
    snprintf(beside, sizeof beside, "%s.swap-new", folder);
    assert_absent(beside);
    snprintf(beside, sizeof beside, "%s.swap-old", folder);
    assert_absent(beside);
}

/* ---- round trips ------------------------------------------------------------------------------------------------ */

static sp_status add_pieces(void *user, const char *folder) {
    char path[512];
    (void)user;
    SP_TRY(sp_path_join(path, sizeof path, folder, "tokenizer.model"));
    return sp_file_write(path, "pieces\0more", 11);
}

static sp_status add_nothing(void *user, const char *folder) {
    (void)folder;
    return sp_fail(SP_IO, "%s: No such file", (const char *)user);
}

static void all_parts_come_back(void **state) {
    const char *folder = path_in(*state, "whole");
    sp_named_tensor tensors[N_TENSORS], moment = {"m", sp_tensor_view(numbers[1], SP_DTYPE_F32, 1, (int64_t[]){5})};
    sp_checkpoint_content content = make_content(tensors, llama_names);
    content.add_files = add_pieces;
    content.state = "{\"step\":7}";
    content.moments = &moment;
    content.n_moments = 1;
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    assert_holds_tensors(folder);
    assert_nothing_beside(folder);

    char *text;
    int64_t n_bytes;
    assert_int_equal(sp_file_read(path_in(folder, "tokenizer.model"), &text, &n_bytes), SP_OK);
    assert_int_equal(n_bytes, 11);
    assert_memory_equal(text, "pieces\0more", 11);
    free(text);
    assert_int_equal(sp_file_read(path_in(folder, "training.json"), &text, &n_bytes), SP_OK);
    assert_string_equal(text, content.state);
    free(text);
    sp_safetensors *moments;
    assert_int_equal(sp_safetensors_open(&moments, path_in(folder, "training.safetensors")), SP_OK);
    assert_memory_equal(sp_safetensors_find(moments, "m")->data, numbers[1], 5 * sizeof(float));
    sp_safetensors_close(moments);
}

static void shards_are_filled_up_to_the_limit(void **state) {
    static const struct {
        int64_t limit;
        int n_shards;
    } cases[] = {{1, 4}, {96, 4}, {192, 2}, {300, 2}, {383, 2}, {384, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32], last[64];
        snprintf(name, sizeof name, "shards-%d", (int)i);
        snprintf(last, sizeof last, "model-%05d-of-%05d.safetensors", cases[i].n_shards, cases[i].n_shards);
        const char *folder = path_in(*state, name);
        sp_named_tensor tensors[N_TENSORS];
        sp_checkpoint_content content = make_content(tensors, llama_names);
        content.shard_bytes_max = cases[i].limit;
        assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
        assert_holds_tensors(folder);
        assert_int_equal(sp_file_exists(path_in(folder, last)), cases[i].n_shards > 1);
        assert_int_equal(sp_file_exists(path_in(folder, "model.safetensors")), cases[i].n_shards == 1);
    }
}

static void folder_may_end_in_slashes(void **state) {
    const char *folder = path_in(*state, "slashes//");
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, llama_names);
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    content.replace = true;
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    assert_holds_tensors(folder);
    assert_nothing_beside(path_in(*state, "slashes"));
}

/* ---- others' names ---------------------------------------------------------------------------------------------- */

static void flas_names_answer_to_llamas(void **state) {
    static const char *const fla_names[N_TENSORS] = {
        "model.embeddings.weight",
        "model.layers.0.attn_norm.weight",
        "model.layers.0.attn.q_proj.weight",
        "model.layers.11.mlp_norm.weight",
    };
    const char *folder = path_in(*state, "fla");
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, fla_names);
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    assert_holds_tensors(folder);
}

static void names_that_only_resemble_flas_stay(void **state) {
    static const char *const names[N_TENSORS] = {"embeddings.weight", "model.layers.x.attn.q_proj.weight",
                                                 "model.layers.3attn.weight", "model.layers.3.cross_attn.weight"};
    const char *folder = path_in(*state, "resemble");
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, names);
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    sp_checkpoint *checkpoint;
    assert_int_equal(sp_checkpoint_open(&checkpoint, folder), SP_OK);
    for (int i = 0; i < N_TENSORS; i++) assert_non_null(sp_checkpoint_find(checkpoint, names[i]));
    sp_checkpoint_close(checkpoint);
}

static sp_status open_with_names(void **state, const char *name, const char *const *names, sp_checkpoint **out) {
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, names);
    content.replace = true;
    assert_int_equal(sp_checkpoint_write(path_in(*state, name), &content), SP_OK);
    return sp_checkpoint_open(out, path_in(*state, name));
}

static void flas_fused_gate_is_seen_as_gate_and_up(void **state) {
    static const char *const names[N_TENSORS] = {"model.embeddings.weight", "model.layers.0.mlp.gate_proj.weight",
                                                 "model.layers.1.mlp.gate_proj.weight",
                                                 "model.layers.1.mlp.up_proj.weight"};
    sp_checkpoint *checkpoint;
    assert_int_equal(open_with_names(state, "fused", names, &checkpoint), SP_OK);
    assert_int_equal(sp_checkpoint_count(checkpoint), N_TENSORS + 1);
    const sp_tensor *gate = sp_checkpoint_find(checkpoint, "model.layers.0.mlp.gate_proj.weight");
    const sp_tensor *up = sp_checkpoint_find(checkpoint, "model.layers.0.mlp.up_proj.weight");
    assert_int_equal(gate->shape[0], 2);
    assert_int_equal(up->shape[0], 2);
    assert_memory_equal(gate->data, numbers[1], sizeof numbers[1] / 2);
    assert_memory_equal(up->data, numbers[1] + N_NUMBERS / 2, sizeof numbers[1] / 2);
    assert_int_equal(sp_checkpoint_find(checkpoint, "model.layers.1.mlp.gate_proj.weight")->shape[0], 4);
    sp_checkpoint_close(checkpoint);
}

static void gate_without_up_stays_in_llamas_files(void **state) {
    static const char *const names[N_TENSORS] = {"model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight",
                                                 "model.layers.1.mlp.gate_proj.weight", "model.norm.weight"};
    sp_checkpoint *checkpoint;
    assert_int_equal(open_with_names(state, "gate", names, &checkpoint), SP_OK);
    assert_int_equal(sp_checkpoint_find(checkpoint, names[1])->shape[0], 4);
    assert_int_equal(sp_checkpoint_count(checkpoint), N_TENSORS);
    sp_checkpoint_close(checkpoint);
}

static void odd_gate_without_up_is_refused(void **state) {
    const char *folder = path_in(*state, "odd");
    sp_named_tensor tensors[] = {
        {"model.embeddings.weight", sp_tensor_view(numbers, SP_DTYPE_F32, 1, (int64_t[]){1})},
        {"model.layers.0.mlp.gate_proj.weight", sp_tensor_view(numbers, SP_DTYPE_F32, 2, (int64_t[]){3, 2})},
    };
    sp_checkpoint_content content = {.config = config, .tensors = tensors, .n_tensors = 2};
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    sp_checkpoint *checkpoint;
    assert_int_equal(sp_checkpoint_open(&checkpoint, folder), SP_BAD_FILE);
    assert_message_has("'model.layers.0.mlp.gate_proj.weight'");
}

static void one_tensor_under_both_names_is_refused(void **state) {
    static const char *const names[N_TENSORS] = {"model.embeddings.weight", "model.embed_tokens.weight", "a", "b"};
    sp_checkpoint *checkpoint;
    assert_int_equal(open_with_names(state, "both", names, &checkpoint), SP_BAD_FILE);
    assert_message_has("'model.embed_tokens.weight' stands there twice");
}

/* ---- damaged folders -------------------------------------------------------------------------------------------- */

static const char index_file[] = "model.safetensors.index.json";

static const struct damage {
    const char *file, *text; /* written over a sharded checkpoint; text NULL: removed */
    sp_status status;
    const char *says;
} damages[] = {
    {"config.json", NULL, SP_IO, "config.json: No such file"},
    {"config.json", "", SP_BAD_FILE, "config.json"},
    {"config.json", "{\"a\":1,", SP_BAD_FILE, "config.json: line 1"},
    {"config.json", "[]", SP_BAD_FILE, "config.json: not a JSON object"},
    {index_file, NULL, SP_BAD_FILE, "neither model.safetensors nor"},
    {index_file, "", SP_BAD_FILE, "index.json: the file is empty"},
    {index_file, "[]", SP_BAD_FILE, "index.json: has no object weight_map"},
    {index_file, "{\"weight_map\":3}", SP_BAD_FILE, "has no object weight_map"},
    {index_file, "{\"weight_map\":{\"w\":3}}", SP_BAD_FILE, "tensor 'w' is not mapped to the plain name"},
    {index_file, "{\"weight_map\":{\"w\":\"\"}}", SP_BAD_FILE, "plain name"},
    {index_file, "{\"weight_map\":{\"w\":\"..\"}}", SP_BAD_FILE, "plain name"},
    {index_file, "{\"weight_map\":{\"w\":\"../secret.safetensors\"}}", SP_BAD_FILE, "plain name"},
    {index_file, "{\"weight_map\":{\"w\":\"/etc/passwd\"}}", SP_BAD_FILE, "plain name"},
    {index_file, "{\"weight_map\":{\"w\":\"a.safetensors\"}}", SP_IO, "a.safetensors: No such file"},
    {index_file, "{\"weight_map\":{\"w\":\"model-00001-of-00002.safetensors\"}}", SP_BAD_FILE,
     "tensor 'w' is not in model-00001-of-00002.safetensors"},
    {"model-00002-of-00002.safetensors", NULL, SP_IO, "model-00002-of-00002.safetensors: No such file"},
    {"model-00002-of-00002.safetensors", "short", SP_BAD_FILE, "model-00002-of-00002.safetensors: 5 bytes: too short"},
};

static void every_damage_is_refused_by_name(void **state) {
    const char *folder = path_in(*state, "damaged");
    sp_named_tensor tensors[N_TENSORS];
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        sp_checkpoint_content content = make_content(tensors, llama_names);
        content.shard_bytes_max = 192;
        assert_int_equal(sp_folder_remove(folder), SP_OK);
        assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
        const char *file = path_in(folder, damages[i].file);
        if (damages[i].text)
            assert_int_equal(sp_file_write(file, damages[i].text, (int64_t)strlen(damages[i].text)), SP_OK);
        else
            assert_int_equal(unlink(file), 0);
        sp_checkpoint *checkpoint = (sp_checkpoint *)tensors;
        sp_status status = sp_checkpoint_open(&checkpoint, folder);
        if (status != damages[i].status) fail_msg("damage %d: \"%s\"", (int)i, sp_last_message());
        assert_null(checkpoint);
        assert_message_has(folder);
        assert_message_has(damages[i].says);
    }
}

static int n_warnings;

static void count_warning(void *user, sp_log_level level, const char *line) {
    (void)user, (void)line;
    n_warnings += level == SP_LOG_WARNING;
}

static void tensors_outside_the_index_are_left_out_with_a_warning(void **state) {
    const char *folder = path_in(*state, "extra");
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, llama_names);
    content.shard_bytes_max = 192;
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    static const char index[] = "{\"weight_map\":{\"model.embed_tokens.weight\":\"model-00001-of-00002.safetensors\"}}";
    assert_int_equal(sp_file_write(path_in(folder, index_file), index, sizeof index - 1), SP_OK);
    n_warnings = 0;
    sp_log_set(count_warning, NULL);
    sp_checkpoint *checkpoint;
    sp_status status = sp_checkpoint_open(&checkpoint, folder);
    sp_log_set(NULL, NULL);
    assert_int_equal(status, SP_OK);
    assert_int_equal(n_warnings, 1);
    assert_int_equal(sp_checkpoint_count(checkpoint), 1);
    sp_checkpoint_close(checkpoint);
}

static void missing_folder_is_named(void **state) {
    sp_checkpoint *checkpoint;
    assert_int_equal(sp_checkpoint_open(&checkpoint, path_in(*state, "nowhere")), SP_IO);
    assert_message_has("nowhere: no such folder");
    assert_null(checkpoint);
}

/* ---- writing fails: what was there stays ------------------------------------------------------------------------ */

static void existing_folder_is_kept_unless_replaced(void **state) {
    const char *folder = path_in(*state, "kept");
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, llama_names);
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    content.n_tensors = 1;
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_IO);
    assert_message_has("kept: exists already");
    assert_holds_tensors(folder);
    content.replace = true;
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    sp_checkpoint *checkpoint;
    assert_int_equal(sp_checkpoint_open(&checkpoint, folder), SP_OK);
    assert_int_equal(sp_checkpoint_count(checkpoint), 1);
    sp_checkpoint_close(checkpoint);
    assert_nothing_beside(folder);
}

static void empty_folder_may_be_replaced_documents_may_not(void **state) {
    const char *empty = path_in(*state, "empty"), *documents = path_in(*state, "documents");
    const char *letter = path_in(documents, "letter.txt");
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, llama_names);
    content.replace = true;
    assert_int_equal(sp_folder_make(empty), SP_OK);
    assert_int_equal(sp_checkpoint_write(empty, &content), SP_OK);
    assert_holds_tensors(empty);
    assert_int_equal(sp_folder_make(documents), SP_OK);
    assert_int_equal(sp_file_write(letter, "dear", 4), SP_OK);
    assert_int_equal(sp_checkpoint_write(documents, &content), SP_IO);
    assert_message_has("documents: exists and is not a checkpoint");
    assert_int_equal(sp_checkpoint_write(letter, &content), SP_IO);
    assert_true(sp_file_exists(letter));
    assert_nothing_beside(documents);
}

static void failed_write_leaves_the_old_folder(void **state) {
    const char *folder = path_in(*state, "failed");
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, llama_names);
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    content.replace = true;
    char name[] = "no-such.model";
    content.add_files = add_nothing;
    content.user = name;
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_IO);
    assert_message_has("no-such.model: No such file");
    assert_holds_tensors(folder);
    assert_nothing_beside(folder);
    content.add_files = NULL;
    tensors[3].name = tensors[2].name;
    for (content.shard_bytes_max = 0; content.shard_bytes_max <= 96; content.shard_bytes_max += 96) {
        assert_int_equal(sp_checkpoint_write(folder, &content), SP_BAD_ARGUMENT);
        assert_message_has("named 'model.layers.0.self_attn.q_proj.weight'");
        assert_holds_tensors(folder);
        assert_nothing_beside(folder);
    }
}

static void full_disk_leaves_the_old_folder(void **state) {
    const char *disk = path_in(*state, "disk"), *folder = path_in(disk, "model");
    assert_int_equal(sp_folder_make(disk), SP_OK);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=256k") != 0) skip();
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, llama_names);
    sp_status first = sp_checkpoint_write(folder, &content);
    static float large[100000];
    tensors[3].tensor = sp_tensor_view(large, SP_DTYPE_F32, 1, (int64_t[]){100000});
    content.replace = true;
    sp_status second = sp_checkpoint_write(folder, &content);
    char message[1024];
    snprintf(message, sizeof message, "%s", sp_last_message());
    make_tensors(tensors, llama_names);
    if (first == SP_OK) assert_holds_tensors(folder);
    assert_nothing_beside(folder);
    assert_int_equal(umount(disk), 0);
    assert_int_equal(first, SP_OK);
    assert_int_equal(second, SP_IO);
    assert_non_null(strstr(message, "model.safetensors: No space left on device"));
}

static void read_only_folder_is_refused(void **state) {
    const char *place = path_in(*state, "closed"), *folder = path_in(place, "model");
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, llama_names);
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    assert_int_equal(chmod(*state, 0755), 0);
    assert_int_equal(chmod(place, 0555), 0);
    uid_t user = geteuid();
    if (user == 0) assert_int_equal(seteuid(65534), 0); /* root may write anywhere */
    content.replace = true;
    sp_status replaced = sp_checkpoint_write(folder, &content);
    assert_message_has("Permission denied");
    sp_status added = sp_checkpoint_write(path_in(place, "other"), &content);
    assert_message_has("other");
    assert_int_equal(seteuid(user), 0);
    assert_int_equal(replaced, SP_IO);
    assert_int_equal(added, SP_IO);
    assert_holds_tensors(folder);
    assert_nothing_beside(folder);
    assert_int_equal(chmod(place, 0755), 0);
}

static void incomplete_content_is_refused(void **state) {
    const char *folder = path_in(*state, "refused");
    sp_named_tensor tensors[N_TENSORS];
    sp_checkpoint_content content = make_content(tensors, llama_names);
    content.moments = tensors;
    content.n_moments = 1;
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_BAD_ARGUMENT);
    content.config = NULL;
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_BAD_ARGUMENT);
    content = make_content(tensors, llama_names);
    content.shard_bytes_max = -1;
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_BAD_ARGUMENT);
    assert_absent(folder);
    assert_nothing_beside(folder);
}

/* ---- the real thing --------------------------------------------------------------------------------------------- */

static void published_checkpoint_opens(void **state) {
    (void)state;
    const char *data = getenv("SOFTPICK_DATA"), *here = strstr(__FILE__, "/tests/");
    char folder[4096];
    if (data)
        snprintf(folder, sizeof folder, "%s/ckpt/stories260K-hf", data);
    else
        snprintf(folder, sizeof folder, "%.*s/../shared/data/ckpt/stories260K-hf", (int)(here - __FILE__), __FILE__);
    if (!sp_folder_exists(folder)) skip();
    sp_checkpoint *checkpoint;
    assert_int_equal(sp_checkpoint_open(&checkpoint, folder), SP_OK);
    assert_int_equal(sp_checkpoint_count(checkpoint), 47);
    assert_int_equal(sp_checkpoint_find(checkpoint, "model.embed_tokens.weight")->shape[1], 64);
    sp_checkpoint_close(checkpoint);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_parts_come_back),
        cmocka_unit_test(shards_are_filled_up_to_the_limit),
        cmocka_unit_test(folder_may_end_in_slashes),
        cmocka_unit_test(flas_names_answer_to_llamas),
        cmocka_unit_test(names_that_only_resemble_flas_stay),
        cmocka_unit_test(flas_fused_gate_is_seen_as_gate_and_up),
        cmocka_unit_test(gate_without_up_stays_in_llamas_files),
        cmocka_unit_test(odd_gate_without_up_is_refused),
        cmocka_unit_test(one_tensor_under_both_names_is_refused),
        cmocka_unit_test(every_damage_is_refused_by_name),
        cmocka_unit_test(tensors_outside_the_index_are_left_out_with_a_warning),
        cmocka_unit_test(missing_folder_is_named),
        cmocka_unit_test(existing_folder_is_kept_unless_replaced),
        cmocka_unit_test(empty_folder_may_be_replaced_documents_may_not),
        cmocka_unit_test(failed_write_leaves_the_old_folder),
        cmocka_unit_test(full_disk_leaves_the_old_folder),
        cmocka_unit_test(read_only_folder_is_refused),
        cmocka_unit_test(incomplete_content_is_refused),
        cmocka_unit_test(published_checkpoint_opens),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
