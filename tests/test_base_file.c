/* Files and folders: mapped, written whole or not at all, made, removed. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static char scratch[64];

static int make_scratch(void **state) {
    (void)state;
    snprintf(scratch, sizeof scratch, "/tmp/softpick-file-XXXXXX");
    return mkdtemp(scratch) && chdir(scratch) == 0 ? 0 : -1; /* the tests use relative paths */
}

static int remove_scratch(void **state) {
    (void)state;
    return chdir("/") == 0 && sp_folder_remove(scratch) == SP_OK ? 0 : -1;
}

static void assert_message_has(const char *part) {
    if (!strstr(sp_last_message(), part)) fail_msg("message \"%s\" should name \"%s\"", sp_last_message(), part);
}

static void assert_text(const char *path, const char *expected) {
    char *text;
    int64_t n_bytes;
    assert_int_equal(sp_file_read(path, &text, &n_bytes), SP_OK);
    assert_int_equal(n_bytes, strlen(expected));
    assert_string_equal(text, expected);
    free(text);
}

static void write_text(const char *path, const char *text) {
    assert_int_equal(sp_file_write(path, text, (int64_t)strlen(text)), SP_OK);
}

static int count_entries(const char *folder) {
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    int n = -2; /* "." and ".." */
    while (readdir(entries)) n++;
    closedir(entries);
    return n;
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static void what_is_written_is_read(void **state) {
    (void)state;
    write_text("a", "some text");
    assert_text("a", "some text");
    write_text("a", "");
    assert_text("a", "");
    char *text;
    assert_int_equal(sp_file_read("a", &text, NULL), SP_OK); /* the size need not be asked for */
    free(text);
}

static void map_shows_the_bytes(void **state) {
    (void)state;
    sp_file_map map;
    assert_int_equal(sp_file_write("zeros", "a\0b", 3), SP_OK);
    assert_int_equal(sp_file_map_open(&map, "zeros"), SP_OK);
    assert_int_equal(map.n_bytes, 3);
    assert_memory_equal(map.data, "a\0b", 3);
    sp_file_map_close(&map);
    assert_null(map.data);
    sp_file_map_close(&map); /* twice is fine */
    write_text("empty", "");
    assert_int_equal(sp_file_map_open(&map, "empty"), SP_OK);
    assert_null(map.data);
    assert_int_equal(map.n_bytes, 0);
    sp_file_map_close(&map);
}

static void what_cannot_be_mapped_is_named(void **state) {
    (void)state;
    sp_file_map map;
    char *text = scratch;
    assert_int_equal(sp_file_map_open(&map, "missing"), SP_IO);
    assert_message_has("missing: No such file");
    assert_int_equal(sp_file_map_open(&map, "."), SP_IO);
    assert_message_has(".: not a regular file");
    assert_int_equal(sp_file_read("missing", &text, NULL), SP_IO);
    assert_null(text);
    assert_int_equal(mkfifo("pipe", 0600), 0);
    assert_int_equal(sp_file_map_open(&map, "pipe"), SP_IO); /* and does not wait for a writer */
    assert_message_has("pipe: not a regular file");
}

static void file_appears_when_it_is_finished(void **state) {
    (void)state;
    sp_file_writer writer;
    write_text("kept", "old");
    assert_int_equal(sp_file_writer_open(&writer, "kept"), SP_OK);
    assert_int_equal(sp_file_writer_add(&writer, "ne", 2), SP_OK);
    assert_text("kept", "old");
    assert_int_equal(sp_file_writer_add(&writer, "w", 1), SP_OK);
    assert_int_equal(sp_file_writer_finish(&writer), SP_OK);
    assert_text("kept", "new");
    sp_file_writer_abandon(&writer); /* after finish: nothing happens */
    assert_text("kept", "new");
}

static void abandoned_file_leaves_no_trace(void **state) {
    (void)state;
    sp_file_writer writer;
    assert_int_equal(sp_folder_make("trace"), SP_OK);
    write_text("trace/kept", "old");
    assert_int_equal(sp_file_writer_open(&writer, "trace/kept"), SP_OK);
    assert_int_equal(sp_file_writer_add(&writer, "new", 3), SP_OK);
    sp_file_writer_abandon(&writer);
    assert_text("trace/kept", "old");
    assert_int_equal(count_entries("trace"), 1);
    sp_file_writer_abandon(&(sp_file_writer){0});
}

static void failed_write_leaves_no_trace(void **state) {
    (void)state;
    assert_int_equal(sp_folder_make("failed/taken"), SP_OK);
    write_text("failed/taken/inside", "old");
    assert_int_equal(sp_file_write("failed/taken", "new", 3), SP_IO); /* a folder has the name */
    assert_message_has("failed/taken: ");
    assert_int_equal(count_entries("failed"), 1);
    assert_text("failed/taken/inside", "old");
    assert_int_equal(sp_file_write("failed/no/such/folder", "new", 3), SP_IO);
    assert_message_has("failed/no/such/folder: No such file");
}

/* The temporary name of so long a path, cut to the buffer, is the name of another file. */
static void path_too_long_touches_nothing(void **state) {
    (void)state;
    char path[4096];
    memset(path, '/', sizeof path);
    memcpy(path, "./", 2);
    strcpy(path + sizeof path - 5, "bait");
    write_text("bait", "old");
    assert_int_equal(sp_file_write(path, "new", 3), SP_IO);
    assert_message_has("the path is too long");
    assert_text("bait", "old");
}

static void full_device_is_reported(void **state) {
    (void)state;
    static char data[100000];
    sp_file_writer writer = {.file = fopen("/dev/full", "wb"), .path = "full"};
    if (!writer.file) skip();
    sp_status status = sp_file_writer_add(&writer, data, sizeof data);
    if (status == SP_OK) status = sp_file_writer_finish(&writer);
    assert_int_equal(status, SP_IO);
    assert_message_has("full: No space left on device");
    sp_file_writer_abandon(&writer);
}

/* ---- folders ---------------------------------------------------------------------------------------------------- */

static void folder_is_made_with_its_parents(void **state) {
    (void)state;
    assert_int_equal(sp_folder_make("x/y//z/"), SP_OK);
    assert_true(sp_folder_exists("x/y/z"));
    assert_int_equal(sp_folder_make("x/y/z"), SP_OK);
    assert_int_equal(sp_folder_make("/"), SP_OK);
    assert_int_equal(sp_folder_make("."), SP_OK);
    assert_int_equal(sp_folder_make(""), SP_IO);
}

static void file_in_the_way_of_a_folder_is_named(void **state) {
    (void)state;
    write_text("way", "file");
    assert_int_equal(sp_folder_make("way"), SP_IO);
    assert_message_has("way: exists and is not a folder");
    assert_int_equal(sp_folder_make("way/below"), SP_IO);
    assert_message_has("way/below: Not a directory");
    assert_text("way", "file");
}

static void folder_is_removed_with_all_in_it_and_nothing_else(void **state) {
    (void)state;
    assert_int_equal(sp_folder_make("outside"), SP_OK);
    write_text("outside/kept", "text");
    assert_int_equal(sp_folder_make("gone/deep/er"), SP_OK);
    write_text("gone/deep/file", "text");
    assert_int_equal(symlink("../outside", "gone/link"), 0);
    assert_int_equal(symlink("nowhere", "gone/broken"), 0);
    assert_int_equal(sp_folder_remove("gone"), SP_OK);
    assert_false(sp_folder_exists("gone"));
    assert_text("outside/kept", "text");
    assert_int_equal(sp_folder_remove("gone"), SP_OK); /* not there: fine */
    assert_int_equal(symlink("outside", "link"), 0);
    assert_int_equal(sp_folder_remove("link"), SP_OK);
    assert_text("outside/kept", "text");
}

static void kinds_are_told_apart(void **state) {
    (void)state;
    write_text("file", "");
    assert_int_equal(sp_folder_make("folder"), SP_OK);
    assert_true(sp_file_exists("file") && !sp_folder_exists("file"));
    assert_true(sp_folder_exists("folder") && !sp_file_exists("folder"));
    assert_true(!sp_folder_exists("neither") && !sp_file_exists("neither"));
}

static void folders_are_synced_or_named(void **state) {
    (void)state;
    assert_int_equal(sp_folder_sync("."), SP_OK);
    assert_int_equal(sp_folder_sync("neither"), SP_IO);
    assert_message_has("neither: No such file");
    assert_int_equal(sp_folder_sync_parent("name"), SP_OK);
    assert_int_equal(sp_folder_sync_parent("/name"), SP_OK);
    assert_int_equal(sp_folder_sync_parent("neither/name"), SP_IO);
}

static void paths_are_joined_or_refused(void **state) {
    (void)state;
    char path[8];
    assert_int_equal(sp_path_join(path, sizeof path, "abc", "def"), SP_OK);
    assert_string_equal(path, "abc/def");
    assert_int_equal(sp_path_join(path, sizeof path, "abc/", "def"), SP_OK);
    assert_string_equal(path, "abc/def");
    assert_int_equal(sp_path_join(path, sizeof path, "/", "def"), SP_OK);
    assert_string_equal(path, "/def");
    assert_int_equal(sp_path_join(path, sizeof path, "abcd", "def"), SP_IO);
    assert_message_has("abcd/def: the path is too long");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(map_shows_the_bytes),
        cmocka_unit_test(what_cannot_be_mapped_is_named),
        cmocka_unit_test(file_appears_when_it_is_finished),
        cmocka_unit_test(abandoned_file_leaves_no_trace),
        cmocka_unit_test(failed_write_leaves_no_trace),
        cmocka_unit_test(path_too_long_touches_nothing),
        cmocka_unit_test(full_device_is_reported),
        cmocka_unit_test(folder_is_made_with_its_parents),
        cmocka_unit_test(file_in_the_way_of_a_folder_is_named),
        cmocka_unit_test(folder_is_removed_with_all_in_it_and_nothing_else),
        cmocka_unit_test(kinds_are_told_apart),
        cmocka_unit_test(folders_are_synced_or_named),
        cmocka_unit_test(paths_are_joined_or_refused),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
