/* Status names, the thread's last message, the log function. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifndef SP_VERSION_STRING
#error "SP_VERSION_STRING is defined by CMakeLists.txt"
#endif

static _Thread_local char last_message[1024];

static sp_log_function log_function;
static void *log_user;

const char *sp_version(void) { return SP_VERSION_STRING; }

const char *sp_status_name(sp_status status) {
    static const char *const names[] = {
        [SP_OK] = "ok",
        [SP_BAD_ARGUMENT] = "bad argument",
        [SP_UNSUPPORTED] = "unsupported",
        [SP_NO_DEVICE] = "no device",
        [SP_OUT_OF_MEMORY] = "out of memory",
        [SP_IO] = "input/output error",
        [SP_BAD_FILE] = "bad file",
        [SP_VERSION] = "version too new",
        [SP_DEVICE_FAILED] = "device failed",
        [SP_CANCELLED] = "cancelled",
        [SP_INTERNAL] = "internal error",
    };
    int count = (int)(sizeof names / sizeof *names);
    return (int)status >= 0 && (int)status < count ? names[status] : "unknown status";
}

const char *sp_last_message(void) { return last_message; }

/* One line: names that come from files may hold line ends. */
static void format_line(char *line, size_t n_bytes, const char *format, va_list arguments) {
    vsnprintf(line, n_bytes, format, arguments);
    for (char *at = line; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f) *at = ' ';
}

sp_status sp_fail(sp_status status, const char *format, ...) {
    /* Formatted aside first: an argument may be the previous message itself. */
    char message[sizeof last_message];
    va_list arguments;
    va_start(arguments, format);
    format_line(message, sizeof message, format, arguments);
    va_end(arguments);
    memcpy(last_message, message, strlen(message) + 1);
    return status;
}

void sp_log_set(sp_log_function function, void *user) {
    log_function = function;
    log_user = user;
}

void sp_log(sp_log_level level, const char *format, ...) {
    if (!log_function) return;
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    format_line(line, sizeof line, format, arguments);
    va_end(arguments);
    log_function(log_user, level, line);
}
