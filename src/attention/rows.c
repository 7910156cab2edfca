/* Attention weights row by row, for measures and pictures: the chosen variant computes them, this file checks. */
#include "softpick/attention.h"

#include "attention/problem.h"
#include "attention/select.h"
#include "base/status.h"

sp_status sp_attention_rows(const sp_attention *callers, sp_attention_row_function function, void *user) {
    sp_attention problem;
    const sp_attention_row *row;
    SP_TRY(sp_problem_read(&problem, callers));
    SP_REQUIRE(!problem.page_table, SP_BAD_ARGUMENT, "page_table is given, but rows takes no pages");
    SP_TRY(sp_problem_check_keys(&problem));
    SP_REQUIRE(function, SP_BAD_ARGUMENT, "function is NULL");
    SP_TRY(sp_attention_select(&problem, SP_ATTENTION_FORWARD, &row));
    return row->rows(&problem, function, user);
}
