/* How code inside the library reports failures and log lines. */
#ifndef SP_BASE_STATUS_H
#define SP_BASE_STATUS_H

#include "softpick/status.h"

/* Stores the sentence for this thread and returns `status`.  Called where the error is found, never on the way up. */
sp_status sp_fail(sp_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Sends one line to the function of sp_log_set, if any. */
void sp_log(sp_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Returns the status of a failed call. */
#define SP_TRY(call)                                                                                                   \
    do {                                                                                                               \
        sp_status sp_try_status_ = (call);                                                                             \
        if (sp_try_status_ != SP_OK) return sp_try_status_;                                                            \
    } while (0)

/* Checks input: SP_REQUIRE(condition, code, format, ...). */
#define SP_REQUIRE(condition, code, ...)                                                                               \
    do {                                                                                                               \
        if (!(condition)) return sp_fail((code), __VA_ARGS__);                                                         \
    } while (0)

/* The same in a function that owns something: sets its `status` and jumps to its single label `done`. */
#define SP_TRY_OR_DONE(call)                                                                                           \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != SP_OK) goto done;                                                                                \
    } while (0)

#define SP_REQUIRE_OR_DONE(condition, code, ...)                                                                       \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            status = sp_fail((code), __VA_ARGS__);                                                                     \
            goto done;                                                                                                 \
        }                                                                                                              \
    } while (0)

#endif
