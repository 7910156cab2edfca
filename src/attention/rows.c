/* Attention weights row by row, for measures and pictures: the chosen variant computes them, this file checks. */
#include "softpick/attention.h"

#include "attention/problem.h"
#include "attention/select.h"
#include "base/status.h"

sp_status sp_attention_rows(const sp_attention *problem, sp_attention_row_function function, void *user) {
    const sp_attention_row *row;
    SP_TRY(sp_problem_check_keys(problem));
    SP_REQUIRE(function, SP_BAD_ARGUMENT, "function is NULL");
    SP_TRY(sp_attention_select(problem, SP_ATTENTION_FORWARD, &row));
    return row->rows(problem, function, user);
}
