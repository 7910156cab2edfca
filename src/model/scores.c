/* Log-probabilities of given tokens after a pass: only the rows that something is predicted from meet the head, gathered, a
 * chunk of them at a time.  Logits are f32 out of the product: in bf16 they would have three digits. */
#include "model/model_private.h"

#include <inttypes.h>

#include "base/memory.h"

/* What scoring holds beside the buffers of the pass: n predictions, and a chunk of rows for the head. */
typedef struct score_buffers {
    int32_t *rows, *targets;  /* (n) */
    float *log_probabilities; /* (n) */
    bool *greedy;             /* (n) */
    void *h;                  /* (chunk,C) act */
} score_buffers;

static score_buffers carve_scores(void *base, int64_t *used, const sp_model *model, int64_t n, int64_t chunk) {
    score_buffers s;
    s.rows = sp_carve(base, used, n, sizeof *s.rows);
    s.targets = sp_carve(base, used, n, sizeof *s.targets);
    s.log_probabilities = sp_carve(base, used, n, sizeof *s.log_probabilities);
    s.greedy = sp_carve(base, used, n, sizeof *s.greedy);
    s.h = sp_carve(base, used, chunk * model->config.width, (size_t)sp_dtype_bytes(model->options.dtype));
    return s;
}

/* Rows of f32 logits that the buffer of the pass holds. */
static int64_t rows_at_a_time(const sp_model *model) {
    int64_t rows = sp_model_head_rows(&model->options) * sp_dtype_bytes(model->options.dtype) / 4;
    return model->buffers.n_tokens_max < rows ? model->buffers.n_tokens_max : rows;
}

static sp_status check(const sp_model *model, const sp_batch *batch, const int32_t *rows, const int32_t *targets,
                       int64_t n) {
    SP_TRY(sp_batch_check(model, batch, false));
    SP_REQUIRE(n >= 0 && n <= INT32_MAX, SP_BAD_ARGUMENT, "%" PRId64 " predictions of one batch", n);
    for (int64_t i = 0; i < n; i++) {
        SP_REQUIRE(rows[i] >= 0 && rows[i] < batch->B * batch->T, SP_BAD_ARGUMENT,
                   "prediction %" PRId64 " follows token %d of a batch of %" PRId64, i, (int)rows[i],
                   batch->B * batch->T);
        SP_REQUIRE(targets[i] >= 0 && targets[i] < model->config.vocabulary, SP_BAD_ARGUMENT,
                   "target %d is not in the vocabulary of %" PRId64, (int)targets[i], model->config.vocabulary);
    }
    return SP_OK;
}

/* Predictions `first` to `first` + n, from the final norm's output in buffers.h. */
static sp_status score_chunk(sp_model *model, const score_buffers *s, int64_t first, int64_t n) {
    const pass_buffers *p = &model->buffers;
    const int64_t C = model->config.width, V = model->config.vocabulary;
    const sp_dtype act = model->options.dtype;
    const int64_t row_bytes = C * sp_dtype_bytes(act);
    const void *weight = sp_model_weight(model, model->table.head);
    SP_TRY(SP_LAYER(model, gather_rows, s->h, p->h, row_bytes, s->rows + first, row_bytes, n));
    SP_TRY(SP_LAYER(model, linear_forward, p->logits, SP_DTYPE_F32, V, s->h, C, weight, act, NULL, n, C, V));
    sp_lap(model, &model->profile.matmul);
    SP_TRY(SP_LAYER(model, predictions, s->log_probabilities + first, s->greedy + first, p->logits, s->targets + first,
                    n, V));
    sp_lap(model, &model->profile.loss);
    return SP_OK;
}

sp_status sp_model_score(sp_model *model, const sp_batch *batch, const int32_t *rows, const int32_t *targets, int64_t n,
                         float *log_probabilities, bool *greedy) {
    SP_TRY(check(model, batch, rows, targets, n));
    SP_TRY(sp_buffers_fit(model, batch, false));
    pass_buffers *p = &model->buffers;
    int64_t chunk = rows_at_a_time(model), bytes = 0, placed = 0;
    (void)carve_scores(NULL, &bytes, model, n, chunk);
    SP_TRY(sp_model_fit_block(model, &p->score_block, &p->score_bytes, bytes, "predictions"));
    score_buffers s = carve_scores(p->score_block, &placed, model, n, chunk);
    SP_TRY(sp_device_upload(model->device, s.rows, rows, n * (int64_t)sizeof *rows));
    SP_TRY(sp_device_upload(model->device, s.targets, targets, n * (int64_t)sizeof *targets));
    SP_TRY(sp_model_trunk(model, batch, NULL, NULL));
    for (int64_t first = 0; first < n; first += chunk)
        SP_TRY(score_chunk(model, &s, first, n - first < chunk ? n - first : chunk));
    SP_TRY(sp_device_download(model->device, log_probabilities, s.log_probabilities, n * (int64_t)sizeof(float)));
    SP_TRY(sp_device_download(model->device, greedy, s.greedy, n * (int64_t)sizeof(bool)));
    sp_laps_end(model);
    return SP_OK;
}
