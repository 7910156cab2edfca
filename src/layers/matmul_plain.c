/* Matrix products by plain loops over blocks, on any CPU: blocks of a and b are copied to f32, whatever their
 * dtype and strides, and a block of c is summed in f32, over K in order.  A thread owns whole blocks of c. */
#include "layers/matmul.h"

#include "layers/row_kernels.h"

enum { ROWS = 32, COLUMNS = 128, DEPTH = 64 };

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static const void *element(const sp_matrix *matrix, int64_t row, int64_t column) {
    return (const char *)matrix->data +
           (row * matrix->row_stride + column * matrix->column_stride) * sp_dtype_bytes(matrix->dtype);
}

/* block (n_rows, n_columns)@COLUMNS = part of the matrix that begins at (row, column) */
static void copy_block(float *block, int64_t block_stride, const sp_matrix *matrix, int64_t row, int64_t column,
                       int64_t n_rows, int64_t n_columns) {
    const sp_row_kernels *kernels = sp_row_kernels_best();
    if (matrix->column_stride == 1) {
        for (int64_t i = 0; i < n_rows; i++)
            kernels->convert(block + i * block_stride, SP_DTYPE_F32, element(matrix, row + i, column), matrix->dtype,
                             n_columns);
        return;
    }
    float line[COLUMNS];
    for (int64_t j = 0; j < n_columns; j++) {
        kernels->convert(line, SP_DTYPE_F32, element(matrix, row, column + j), matrix->dtype, n_rows);
        for (int64_t i = 0; i < n_rows; i++) block[i * block_stride + j] = line[i];
    }
}

static void multiply_block(float c[ROWS][COLUMNS], float a[ROWS][DEPTH], float b[DEPTH][COLUMNS], int64_t n_rows,
                           int64_t depth) {
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t k = 0; k < depth; k++)
#pragma omp simd
            for (int64_t j = 0; j < COLUMNS; j++) c[i][j] += a[i][k] * b[k][j];
}

static void run_block(const sp_product *p, int64_t row, int64_t column) {
    float a[ROWS][DEPTH], b[DEPTH][COLUMNS] = {{0}}, c[ROWS][COLUMNS] = {{0}};
    int64_t n_rows = smaller(ROWS, p->M - row), n_columns = smaller(COLUMNS, p->N - column);
    for (int64_t k = 0; k < p->K; k += DEPTH) {
        int64_t depth = smaller(DEPTH, p->K - k);
        copy_block(a[0], DEPTH, &p->a, row, k, n_rows, depth);
        copy_block(b[0], COLUMNS, &p->b, k, column, depth, n_columns);
        multiply_block(c, a, b, n_rows, depth);
    }
    const sp_row_kernels *kernels = sp_row_kernels_best();
    for (int64_t i = 0; i < n_rows; i++) {
        char *out = (char *)p->c + ((row + i) * p->c_stride + column) * sp_dtype_bytes(p->c_dtype);
        if (p->accumulate) kernels->add(c[i], (const float *)(const void *)out, n_columns);
        kernels->convert(out, p->c_dtype, c[i], SP_DTYPE_F32, n_columns);
    }
}

sp_status sp_matmul_plain(const sp_product *product) {
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t row = 0; row < product->M; row += ROWS)
        for (int64_t column = 0; column < product->N; column += COLUMNS) run_block(product, row, column);
    return SP_OK;
}
