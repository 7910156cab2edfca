/* The checkpoints of a run: newest, prune, what a killed swap leaves behind, and a writer killed at random moments. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "base/random.h"
#include "checkpoint_support.h"

/* ---- a checkpoint whose every byte follows from its step -------------------------------------------------------- */

enum { N_TENSORS = 3, N_NUMBERS = 5000 };

static sp_status write_step(const char *folder, int64_t step, bool replace) {
    static float numbers[N_TENSORS][N_NUMBERS];
    char config[64], state[64], names[N_TENSORS][32];
    sp_named_tensor tensors[N_TENSORS];
    snprintf(config, sizeof config, "{\"step\":%" PRId64 "}", step);
    snprintf(state, sizeof state, "{\"step\": %" PRId64 "}", step);
    for (int i = 0; i < N_TENSORS; i++) {
        snprintf(names[i], sizeof names[i], "tensor.%d", i);
        fill(numbers[i], sizeof numbers[i], (uint64_t)(N_TENSORS * step + i));
        tensors[i] = (sp_named_tensor){names[i], sp_tensor_view(numbers[i], SP_DTYPE_F32, 1, (int64_t[]){N_NUMBERS})};
    }
    sp_checkpoint_content content = {.config = config,
                                     .tensors = tensors,
                                     .n_tensors = N_TENSORS,
                                     .shard_bytes_max = step % 2 ? sizeof numbers[0] : 0,
                                     .state = state,
                                     .moments = &tensors[2],
                                     .n_moments = 1,
                                     .replace = replace};
    return sp_checkpoint_write(folder, &content);
}

/* The step whose checkpoint this is, after a check of every byte. */
static int64_t read_step(const char *folder) {
    sp_checkpoint *checkpoint;
    if (sp_checkpoint_open(&checkpoint, folder) != SP_OK) fail_msg("%s", sp_last_message());
    int64_t step = -1;
    assert_int_equal(sscanf(sp_checkpoint_config(checkpoint), "{\"step\":%" SCNd64 "}", &step), 1);
    assert_int_equal(sp_checkpoint_count(checkpoint), N_TENSORS);
    for (int i = 0; i < N_TENSORS; i++) {
        char name[32];
        snprintf(name, sizeof name, "tensor.%d", i);
        assert_true(holds(sp_checkpoint_find(checkpoint, name), (uint64_t)(N_TENSORS * step + i)));
    }
    char state[64], path[8192], *text;
    snprintf(state, sizeof state, "{\"step\": %" PRId64 "}", step);
    snprintf(path, sizeof path, "%s/training.json", sp_checkpoint_folder(checkpoint));
    assert_int_equal(sp_file_read(path, &text, NULL), SP_OK);
    assert_string_equal(text, state);
    free(text);
    snprintf(path, sizeof path, "%s/training.safetensors", sp_checkpoint_folder(checkpoint));
    sp_safetensors *moments;
    assert_int_equal(sp_safetensors_open(&moments, path), SP_OK);
    assert_true(holds(sp_safetensors_find(moments, "tensor.2"), (uint64_t)(N_TENSORS * step + 2)));
    sp_safetensors_close(moments);
    sp_checkpoint_close(checkpoint);
    return step;
}

static const char *step_folder(const char *run, int64_t step) {
    static char folder[8192];
    snprintf(folder, sizeof folder, "%s/step-%08" PRId64, run, step);
    return folder;
}

/* Step of the newest checkpoint, -1 when there is none. */
static int64_t newest_step(const char *run) {
    char *folder;
    assert_int_equal(sp_checkpoint_newest(run, &folder), SP_OK);
    int64_t step = folder ? read_step(folder) : -1;
    free(folder);
    return step;
}

static const char *new_run(void **state, const char *name) {
    const char *run = path_in(*state, name);
    assert_int_equal(sp_folder_make(run), SP_OK);
    return run;
}

static void rename_in(const char *run, const char *from, const char *to) {
    char a[8192], b[8192];
    snprintf(a, sizeof a, "%s/%s", run, from);
    snprintf(b, sizeof b, "%s/%s", run, to);
    assert_int_equal(rename(a, b), 0);
}

/* ---- newest ----------------------------------------------------------------------------------------------------- */

static void run_without_checkpoints_has_no_newest(void **state) {
    assert_int_equal(newest_step(path_in(*state, "no-such-run")), -1);
    const char *run = new_run(state, "bare");
    assert_int_equal(newest_step(run), -1);
    assert_int_equal(sp_checkpoint_prune(run, 1), SP_OK);
    assert_int_equal(sp_checkpoint_prune(path_in(*state, "no-such-run"), 1), SP_OK);
    assert_int_equal(sp_checkpoint_prune(run, 0), SP_BAD_ARGUMENT);
}

static void newest_goes_by_number_not_by_name_or_time(void **state) {
    const char *run = new_run(state, "order");
    static const int64_t steps[] = {100000000, 99999999, 3, 20};
    for (int i = 0; i < 4; i++) assert_int_equal(write_step(step_folder(run, steps[i]), steps[i], false), SP_OK);
    assert_int_equal(newest_step(run), 100000000);
}

static void list_has_the_complete_ones_oldest_first(void **state) {
    const char *run = new_run(state, "list");
    static const int64_t steps[] = {30, 10, 40, 20};
    sp_checkpoint_step *list;
    int64_t n;
    assert_int_equal(sp_checkpoint_list(run, &list, &n), SP_OK);
    assert_int_equal(n, 0);
    sp_checkpoint_list_free(list, n);
    for (int i = 0; i < 4; i++) assert_int_equal(write_step(step_folder(run, steps[i]), steps[i], false), SP_OK);
    assert_int_equal(sp_file_write(path_in(step_folder(run, 20), "config.json"), "{\"cut", 5), SP_OK);
    assert_int_equal(sp_checkpoint_list(run, &list, &n), SP_OK);
    assert_int_equal(n, 3);
    static const int64_t expected[] = {10, 30, 40};
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(list[i].step, expected[i]);
        assert_int_equal(read_step(list[i].folder), expected[i]);
    }
    sp_checkpoint_list_free(list, n);
    assert_int_equal(sp_checkpoint_list(path_in(*state, "no-such-run"), &list, &n), SP_OK);
    assert_int_equal(n, 0);
    sp_checkpoint_list_free(list, n);
}

static void other_folders_are_not_checkpoints(void **state) {
    const char *run = new_run(state, "others");
    static const char *const names[] = {"step-9", "step-00000009x",           "step-00000009.bak",
                                        "best",   "step-0000000000000000009", "Step-00000009"};
    assert_int_equal(write_step(step_folder(run, 5), 5, false), SP_OK);
    for (int i = 0; i < 6; i++) assert_int_equal(write_step(path_in(run, names[i]), 9, false), SP_OK);
    assert_int_equal(newest_step(run), 5);
    assert_int_equal(sp_checkpoint_prune(run, 1), SP_OK);
    for (int i = 0; i < 6; i++) assert_int_equal(read_step(path_in(run, names[i])), 9);
}

static void damaged_newest_is_passed_over(void **state) {
    static const char *const files[] = {"config.json", "model.safetensors", "training.safetensors"};
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "damaged-%d", i);
        const char *run = new_run(state, name);
        for (int64_t step = 2; step <= 6; step += 2)
            assert_int_equal(write_step(step_folder(run, step), step, false), SP_OK);
        assert_int_equal(sp_file_write(path_in(step_folder(run, 6), files[i]), "{\"cut", 5), SP_OK);
        assert_int_equal(newest_step(run), 4);
        /* and is not counted among those to keep */
        assert_int_equal(sp_checkpoint_prune(run, 1), SP_OK);
        assert_int_equal(newest_step(run), 4);
        assert_false(sp_folder_exists(step_folder(run, 2)));
    }
}

/* ---- prune ------------------------------------------------------------------------------------------------------ */

static void prune_keeps_the_newest(void **state) {
    const char *run = new_run(state, "prune");
    for (int64_t step = 1; step <= 5; step++) assert_int_equal(write_step(step_folder(run, step), step, false), SP_OK);
    assert_int_equal(sp_checkpoint_prune(run, 9), SP_OK);
    assert_true(sp_folder_exists(step_folder(run, 1)));
    assert_int_equal(sp_checkpoint_prune(run, 2), SP_OK);
    for (int64_t step = 1; step <= 5; step++) assert_int_equal(sp_folder_exists(step_folder(run, step)), step >= 4);
    assert_int_equal(read_step(step_folder(run, 4)), 4);
    assert_int_equal(read_step(step_folder(run, 5)), 5);
}

/* ---- what a killed swap leaves, state by state (numbered as folder_swap.c goes) ----------------------------------- */

static void killed_while_filling_the_new_one(void **state) {
    const char *run = new_run(state, "filling");
    assert_int_equal(write_step(step_folder(run, 1), 1, false), SP_OK);
    assert_int_equal(write_step(step_folder(run, 2), 2, false), SP_OK);
    rename_in(run, "step-00000002", "step-00000002.swap-new");
    assert_int_equal(newest_step(run), 1);
    assert_int_equal(sp_checkpoint_prune(run, 2), SP_OK);
    assert_false(sp_folder_exists(path_in(run, "step-00000002.swap-new")));
    assert_int_equal(newest_step(run), 1);
}

static void killed_after_the_old_one_stepped_aside(void **state) {
    const char *run = new_run(state, "aside"), *folder = path_in(run, "step-00000007");
    for (int way = 0; way < 3; way++) {
        assert_int_equal(write_step(folder, 7, true), SP_OK);
        rename_in(run, "step-00000007", "step-00000007.swap-old");
        assert_int_equal(write_step(folder, 8, false), SP_IO); /* the old one counts */
        assert_int_equal(read_step(folder), 7);
        rename_in(run, "step-00000007", "step-00000007.swap-old");
        assert_int_equal(newest_step(run), 7);
        assert_int_equal(read_step(folder), 7);
        assert_false(sp_folder_exists(folder)); /* reading changes nothing */
        if (way == 0) assert_int_equal(sp_checkpoint_prune(run, 1), SP_OK);
        if (way == 1) assert_int_equal(write_step(folder, 7, true), SP_OK);
        if (way == 2) continue;
        assert_true(sp_folder_exists(folder));
        assert_int_equal(read_step(folder), 7);
        assert_false(sp_folder_exists(path_in(run, "step-00000007.swap-old")));
    }
}

static void killed_before_the_old_one_was_removed(void **state) {
    const char *run = new_run(state, "before"), *folder = path_in(run, "step-00000003");
    const char *old = path_in(run, "step-00000003.swap-old");
    assert_int_equal(write_step(old, 1, false), SP_OK);
    assert_int_equal(write_step(folder, 3, true), SP_OK);
    assert_false(sp_folder_exists(old));
    assert_int_equal(write_step(old, 1, false), SP_OK);
    assert_int_equal(newest_step(run), 3);
    assert_int_equal(sp_checkpoint_prune(run, 1), SP_OK);
    assert_false(sp_folder_exists(old));
    assert_int_equal(newest_step(run), 3);
}

/* ---- killed for good -------------------------------------------------------------------------------------------- */

/* Writes step after step, prunes, and replaces run/final, reporting each step that stands. */
static void write_until_killed(const char *run, int64_t step, int report) {
    for (;; step++) {
        if (write_step(step_folder(run, step), step, false) != SP_OK) _exit(1);
        if (write(report, &step, sizeof step) != sizeof step) _exit(2);
        if (sp_checkpoint_prune(run, 2) != SP_OK) _exit(3);
        if (write_step(path_in(run, "final"), step, true) != SP_OK) _exit(4);
    }
}

/* What the child reports next, `fallback` when it is dead. */
static int64_t read_report(int report, int64_t fallback) {
    int64_t step;
    return read(report, &step, sizeof step) == sizeof step ? step : fallback;
}

/* Kills the child some microseconds after it has reported n_steps steps: its last report, -1 if there was none. */
static int64_t kill_after(pid_t child, int report, uint64_t n_steps, uint64_t microseconds) {
    int64_t last = -1;
    for (uint64_t i = 0; i < n_steps; i++) last = read_report(report, last);
    struct timespec pause = {.tv_nsec = (long)microseconds * 1000};
    nanosleep(&pause, NULL);
    assert_int_equal(kill(child, SIGKILL), 0);
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how)); /* it had not failed by itself */
    for (int64_t next; (next = read_report(report, last)) != last;) last = next;
    return last;
}

static void writer_killed_at_any_moment_leaves_the_newest_loadable(void **state) {
    enum { N_KILLS = 250, LONGEST_PAUSE = 8000 /* microseconds: about a step */ };
    const char *run = new_run(state, "killed"), *final = path_in(run, "final");
    int64_t stands = -1, final_stands = -1, n_found_aside = 0;
    for (uint64_t i = 0; i < N_KILLS; i++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) write_until_killed(run, stands + 1, ends[1]);
        close(ends[1]);
        int64_t reported = kill_after(child, ends[0], i % 3, sp_random_below(1, 2, i, LONGEST_PAUSE));
        int64_t newest = newest_step(run);
        close(ends[0]);
        assert_true(newest >= stands);
        assert_true(newest >= reported);
        /* A second report means that final was replaced after the first. */
        int64_t replaced = reported > stands + 1 ? reported - 1 : final_stands;
        if (replaced >= 0) {
            n_found_aside += !sp_folder_exists(final);
            final_stands = read_step(final);
            assert_true(final_stands >= replaced);
        }
        stands = newest;
    }
    assert_true(stands > 0);
    print_message("%d kills, %" PRId64 " steps written, final found aside %" PRId64 " times\n", N_KILLS, stands + 1,
                  n_found_aside);
}

/* Runs a writer that replaces step 1 by step 2, and kills it at the n-th stop before or after a system call: nothing
 * else changes a disk.  False when the writer was done before. */
static bool kill_at_stop(const char *folder, int64_t n) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(9);
        raise(SIGSTOP);
        _exit(write_step(folder, 2, true) == SP_OK ? 0 : 1);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    for (int64_t i = 0; i < n && WIFSTOPPED(how); i++) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &how, 0), child);
    }
    bool stopped = WIFSTOPPED(how);
    if (stopped) {
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &how, 0), child);
    } else if (WEXITSTATUS(how) == 9)
        skip(); /* tracing is forbidden here */
    return stopped;
}

static void writer_killed_at_every_system_call_leaves_old_or_new(void **state) {
    const char *run = new_run(state, "stops"), *folder = path_in(run, "step-00000001");
    int64_t n = 0, n_old = 0, n_new = 0, n_aside = 0;
    assert_int_equal(write_step(folder, 1, false), SP_OK);
    for (; kill_at_stop(folder, n); n++) {
        n_aside += !sp_folder_exists(folder);
        int64_t step = read_step(folder);
        assert_true(step == 1 || (step == 2 && n_old > 0));
        assert_true(step == 2 || n_new == 0); /* once new, always new */
        *(step == 1 ? &n_old : &n_new) += 1;
        assert_int_equal(newest_step(run), step);
        if (n % 2) assert_int_equal(sp_checkpoint_prune(run, 1), SP_OK);
        assert_int_equal(write_step(folder, 1, true), SP_OK);
    }
    assert_int_equal(read_step(folder), 2);
    assert_true(n_old > 0 && n_aside > 0 && n_new > 0);
    print_message("%" PRId64 " stops: the old one found %" PRId64 " times (aside %" PRId64 "), the new one %" PRId64
                  "\n",
                  n, n_old, n_aside, n_new);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_without_checkpoints_has_no_newest),
        cmocka_unit_test(newest_goes_by_number_not_by_name_or_time),
        cmocka_unit_test(list_has_the_complete_ones_oldest_first),
        cmocka_unit_test(other_folders_are_not_checkpoints),
        cmocka_unit_test(damaged_newest_is_passed_over),
        cmocka_unit_test(prune_keeps_the_newest),
        cmocka_unit_test(killed_while_filling_the_new_one),
        cmocka_unit_test(killed_after_the_old_one_stepped_aside),
        cmocka_unit_test(killed_before_the_old_one_was_removed),
        cmocka_unit_test(writer_killed_at_every_system_call_leaves_old_or_new),
        cmocka_unit_test(writer_killed_at_any_moment_leaves_the_newest_loadable),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
