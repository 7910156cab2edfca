/* Decoding from a paged cache: two sequences grow token by token, and take a page from a common pool whenever their last
 * one is full.  What comes out at the end is held against one call over unpaged keys.
 *     cc attention_decode.c $(pkg-config --cflags --libs softpick) -lm */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <softpick/attention.h>

enum {
    B = 2,
    H = 4,
    H_KV = 2,
    D = 16,
    PAGE_SIZE = 8,
    N_PAGES = 12,
    PAGES_PER_SEQUENCE = 6,
    STEPS = 20,
    ROW = H_KV * D
};

/* keys and values of all sequences: (N_PAGES, PAGE_SIZE, H_KV, D) */
static float k_pages[N_PAGES * PAGE_SIZE * ROW], v_pages[N_PAGES * PAGE_SIZE * ROW];
static int64_t page_table[B * PAGES_PER_SEQUENCE], key_lengths[B], n_pages_used;
static float k_row[ROW], v_row[ROW], q[B * H * D], out[B * H * D], expected[B * H * D];

/* Prints the library's sentence and leaves if a call failed. */
static void check(sp_status status) {
    if (status == SP_OK) return;
    fprintf(stderr, "%s\n", sp_last_message());
    exit(1);
}

/* Numbers in [-2,2) that stand for what a model would compute. */
static void fill(float *x, int n) {
    static unsigned seed = 1;
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 4194304 - 2;
    }
}

/* One more key and value for sequence b. */
static void append(int64_t b) {
    int64_t *pages = page_table + b * PAGES_PER_SEQUENCE, j = key_lengths[b]++;
    if (j % PAGE_SIZE == 0) pages[j / PAGE_SIZE] = n_pages_used++; /* the order in the pool does not matter */
    int64_t row = pages[j / PAGE_SIZE] * PAGE_SIZE + j % PAGE_SIZE;
    fill(k_row, ROW), fill(v_row, ROW);
    memcpy(k_pages + row * ROW, k_row, sizeof k_row);
    memcpy(v_pages + row * ROW, v_row, sizeof v_row);
}

static void run(const sp_attention *problem) {
    int64_t n_bytes;
    check(sp_attention_workspace(problem, SP_ATTENTION_DECODE, 0, &n_bytes));
    void *workspace = n_bytes > 0 ? aligned_alloc(64, (size_t)n_bytes) : NULL;
    check(sp_attention_decode(problem, workspace, n_bytes, 0));
    free(workspace);
}

/* The same queries against keys and values that lie one behind the other: (B, S, H_KV, D), S the longest. */
static void run_unpaged(sp_attention problem) {
    enum { S = PAGES_PER_SEQUENCE * PAGE_SIZE };
    static float k[B * S * ROW], v[B * S * ROW];
    for (int64_t b = 0; b < B; b++)
        for (int64_t i = 0; i * PAGE_SIZE < key_lengths[b]; i++) {
            int64_t from = page_table[b * PAGES_PER_SEQUENCE + i] * PAGE_SIZE * ROW, to = (b * S + i * PAGE_SIZE) * ROW;
            memcpy(k + to, k_pages + from, PAGE_SIZE * ROW * sizeof *k);
            memcpy(v + to, v_pages + from, PAGE_SIZE * ROW * sizeof *v);
        }
    const int64_t shape[4] = {B, S, H_KV, D};
    problem.k = sp_tensor_view(k, SP_DTYPE_F32, 4, shape);
    problem.v = sp_tensor_view(v, SP_DTYPE_F32, 4, shape);
    problem.page_table = NULL;
    problem.pages_per_sequence = 0;
    run(&problem);
}

int main(void) {
    const int64_t q_shape[4] = {B, 1, H, D}, page_shape[4] = {N_PAGES, PAGE_SIZE, H_KV, D};
    sp_attention problem;
    sp_attention_init(&problem);
    problem.q = sp_tensor_view(q, SP_DTYPE_F32, 4, q_shape);
    problem.k = sp_tensor_view(k_pages, SP_DTYPE_F32, 4, page_shape);
    problem.v = sp_tensor_view(v_pages, SP_DTYPE_F32, 4, page_shape);
    problem.out = sp_tensor_view(out, SP_DTYPE_F32, 4, q_shape);
    problem.page_table = page_table;
    problem.pages_per_sequence = PAGES_PER_SEQUENCE;
    problem.key_lengths = key_lengths;

    for (int prompt = 0; prompt < 13; prompt++) append(1); /* the second sequence begins with a prompt */
    for (int step = 0; step < STEPS; step++) {
        for (int64_t b = 0; b < B; b++) append(b);
        fill(q, B * H * D); /* one query each, which sees all keys of its sequence */
        run(&problem);
    }
    memcpy(expected, out, sizeof out);
    run_unpaged(problem);

    double worst = 0;
    for (int i = 0; i < B * H * D; i++) worst = fmax(worst, fabs((double)out[i] - (double)expected[i]));
    for (int64_t b = 0; b < B; b++) {
        printf("sequence %d: %d keys in pages", (int)b, (int)key_lengths[b]);
        for (int i = 0; i * PAGE_SIZE < key_lengths[b]; i++) printf(" %d", (int)page_table[b * PAGES_PER_SEQUENCE + i]);
        printf("\n");
    }
    printf("largest difference from unpaged keys: %.1e\n", worst);
    return worst < 1e-5 ? 0 : 1;
}
