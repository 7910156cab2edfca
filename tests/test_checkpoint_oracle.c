/* Files exchanged with the reference implementation of safetensors, where Python has it (SOFTPICK_PYTHON names another
 * interpreter than python3). */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/wait.h>

#include "checkpoint_support.h"

enum { N_SHAPES = 4, N_TENSORS = SP_DTYPE_COUNT * N_SHAPES, ABSENT = 77 };

static const struct {
    int64_t n_dims, shape[SP_MAX_DIMS];
} shapes[N_SHAPES] = {{0, {0}}, {1, {7}}, {2, {3, 0}}, {3, {2, 1, 5}}};

/* Every dtype in every shape, tensor.i filled from seed i. */
static void make_tensors(sp_named_tensor tensors[N_TENSORS]) {
    static char names[N_TENSORS][16];
    static uint64_t numbers[N_TENSORS][10];
    for (int i = 0; i < N_TENSORS; i++) {
        snprintf(names[i], sizeof names[i], "tensor.%d", i);
        fill(numbers[i], sizeof numbers[i], (uint64_t)i);
        sp_dtype dtype = (sp_dtype)(i / N_SHAPES);
        tensors[i] = (sp_named_tensor){
            names[i], sp_tensor_view(numbers[i], dtype, shapes[i % N_SHAPES].n_dims, shapes[i % N_SHAPES].shape)};
    }
}

static void assert_same_tensors(const char *path, const sp_named_tensor tensors[N_TENSORS]) {
    sp_safetensors *file;
    if (sp_safetensors_open(&file, path) != SP_OK) fail_msg("%s", sp_last_message());
    assert_int_equal(sp_safetensors_count(file), N_TENSORS);
    for (int i = 0; i < N_TENSORS; i++) {
        const sp_tensor *found = sp_safetensors_find(file, tensors[i].name), *expected = &tensors[i].tensor;
        assert_non_null(found);
        assert_int_equal(found->dtype, expected->dtype);
        assert_int_equal(found->n_dims, expected->n_dims);
        assert_memory_equal(found->shape, expected->shape, sizeof found->shape);
        assert_true(holds(found, (uint64_t)i));
    }
    sp_safetensors_close(file);
}

/* Exit code of the script on the two files. */
static int exchange(const char *ours, const char *theirs) {
    const char *python = getenv("SOFTPICK_PYTHON"), *name = strrchr(__FILE__, '/');
    char script[4096];
    snprintf(script, sizeof script, "%.*s/oracles/safetensors_exchange.py", (int)(name - __FILE__), __FILE__);
    if (!python) python = "python3";
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execlp(python, python, script, ours, theirs, (char *)NULL);
        _exit(ABSENT);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

static void reference_reads_ours_and_we_read_the_reference(void **state) {
    const char *ours = path_in(*state, "ours.safetensors"), *theirs = path_in(*state, "theirs.safetensors");
    sp_named_tensor tensors[N_TENSORS];
    make_tensors(tensors);
    assert_int_equal(sp_safetensors_write(ours, tensors, N_TENSORS), SP_OK);
    assert_same_tensors(ours, tensors);
    int code = exchange(ours, theirs);
    if (code == ABSENT) skip();
    assert_int_equal(code, 0);
    assert_same_tensors(theirs, tensors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_reads_ours_and_we_read_the_reference),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
