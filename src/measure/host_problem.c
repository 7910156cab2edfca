/* Copies from a device; on the host nothing is copied. */
#include "measure/host_problem.h"

#include "attention/problem.h"
#include "attention/select.h"

/* Numbers from the tensor's first to its last. */
static int64_t span_of(const sp_tensor *tensor) {
    int64_t span = 1;
    for (int i = 0; i < tensor->n_dims; i++) span += (tensor->shape[i] - 1) * tensor->stride[i];
    return span;
}

static sp_status read_tensor(sp_host_problem *host, int i, sp_tensor *tensor) {
    if (sp_tensor_count(tensor) == 0) return SP_OK;
    int64_t bytes = span_of(tensor) * sp_dtype_bytes(tensor->dtype);
    SP_TRY(sp_device_read_begin(host->device, &host->read[i], tensor->data, bytes));
    tensor->data = (void *)(uintptr_t)host->read[i];
    tensor->device = 0;
    return SP_OK;
}

static sp_status read_floats(sp_host_problem *host, int i, const float **floats, int64_t n) {
    if (!*floats) return SP_OK;
    SP_TRY(sp_device_read_begin(host->device, &host->read[i], *floats, n * (int64_t)sizeof **floats));
    *floats = host->read[i];
    return SP_OK;
}

sp_status sp_host_problem_begin(sp_host_problem *host, const sp_attention *callers) {
    *host = (sp_host_problem){0};
    sp_attention *problem = &host->problem;
    sp_status status = SP_OK;
    SP_TRY(sp_problem_read(problem, callers));
    SP_TRY(sp_problem_check_keys(problem));
    SP_TRY(sp_device_open(&host->device, problem->q.device));
    SP_TRY_OR_DONE(sp_device_wait(&(sp_device){.id = problem->q.device, .stream = problem->stream}));
    SP_TRY_OR_DONE(read_tensor(host, 0, &problem->q));
    SP_TRY_OR_DONE(read_tensor(host, 1, &problem->k));
    SP_TRY_OR_DONE(read_floats(host, 2, &problem->sink, problem->q.shape[2]));
    SP_TRY_OR_DONE(read_floats(host, 3, &problem->row_factor, problem->q.shape[2]));
    problem->stream = NULL;
    problem->v = problem->out = (sp_tensor){0};
    problem->lse = NULL;
done:
    if (status != SP_OK) sp_host_problem_end(host);
    return status;
}

void sp_host_problem_end(sp_host_problem *host) {
    for (int i = 0; i < 4; i++)
        if (host->read[i]) sp_device_read_end(host->device, host->read[i]);
    if (host->device) sp_device_close(host->device);
    *host = (sp_host_problem){0};
}

sp_status sp_host_problem_rows(const sp_host_problem *host, const sp_attention *part,
                               sp_attention_row_function function, void *user) {
    return host->device->id ? sp_attention_host_rows(part, function, user) : sp_attention_rows(part, function, user);
}
