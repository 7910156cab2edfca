/* Status codes, the sentence that goes with a failure, and where log lines go.  Stable: may only grow. */
#ifndef SOFTPICK_STATUS_H
#define SOFTPICK_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SP_API        __attribute__((visibility("default")))
#define SP_MUST_CHECK __attribute__((warn_unused_result))
#else
#define SP_API
#define SP_MUST_CHECK
#endif

typedef enum sp_status {
    SP_OK = 0,
    SP_BAD_ARGUMENT = 1, /* the call is wrong: a shape, a range, a NULL */
    SP_UNSUPPORTED = 2,  /* the call is valid but no code here can do it */
    SP_NO_DEVICE = 3,    /* the device asked for is not in this machine or this build */
    SP_OUT_OF_MEMORY = 4,
    SP_IO = 5,            /* the system refused to read or write */
    SP_BAD_FILE = 6,      /* the file was read and its content is wrong */
    SP_VERSION = 7,       /* the file was written by a newer version */
    SP_DEVICE_FAILED = 8, /* an execution error on a device */
    SP_CANCELLED = 9,     /* a callback of the caller asked to stop */
    SP_INTERNAL = 10,     /* a mistake of ours */
} sp_status;

/* Name of a code: "ok", "bad argument", ...  Never NULL. */
SP_API const char *sp_status_name(sp_status status);

/* Sentence of the last failure on this thread, with names and values; "" if there was none.  Valid until the
 * next failing call on this thread. */
SP_API const char *sp_last_message(void);

/* "0.1.0" */
SP_API const char *sp_version(void);

typedef enum sp_log_level { SP_LOG_DEBUG = 0, SP_LOG_INFO = 1, SP_LOG_WARNING = 2 } sp_log_level;
typedef void (*sp_log_function)(void *user, sp_log_level level, const char *line);

/* Where the library sends its log lines (no newline at their end).  NULL, the default: nowhere.
 * Not thread-safe: set it once, before other calls. */
SP_API void sp_log_set(sp_log_function function, void *user);

#ifdef __cplusplus
}
#endif
#endif
