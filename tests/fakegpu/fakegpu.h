/*
 * A fake GPU for machines without one. Its "device memory" are files in $FAKEGPU_DIR, outside of the process that owns
 * them, and a process that uses it holds a character device open that CRIU refuses to dump. So a dump without the CUDA
 * steps fails for real, and after a restore without them the program waits for ever in its next CUDA call.
 *
 *   $FAKEGPU_DIR/gpus              one GPU a line: UUID TOTAL_BYTES PERSISTENCE COMPUTE_MODE MIG MODEL...
 *   $FAKEGPU_DIR/faults            what goes wrong, one a line: ACTION FAULT [PID]; see `fault`
 *   $FAKEGPU_DIR/memory/UUID/PID.N device memory of allocation N of process PID
 *   $FAKEGPU_DIR/control/PID.*     how another process reaches the restore thread of PID
 *   $FAKEGPU_DEVICE                the character device
 *
 * DRIVER (550, 570, ...) is given when it is compiled.
 */
#ifndef FAKEGPU_H
#define FAKEGPU_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum result {
	SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_CONTEXT = 201,
	OPERATING_SYSTEM = 304, ILLEGAL_STATE = 401, NOT_FOUND = 500, NOT_READY = 600, NOT_PERMITTED = 800,
	NOT_SUPPORTED = 801, UNKNOWN = 999,
};
enum state { RUNNING = 0, LOCKED = 1, CHECKPOINTED = 2, FAILED = 3 };

#define MAX_GPUS 8
#define UUID_TEXT 41 /* GPU- and 36 characters */

struct gpu {
	char uuid[UUID_TEXT];
	uint64_t total;
	int persistence, compute_mode, mig;
	char model[64];
};
struct pair {
	char old[UUID_TEXT], new[UUID_TEXT];
};
struct request {
	char action[24];
	int timeout_ms;
	int initialized; /* whether the caller has called cuInit */
	int pairs;
	struct pair map[MAX_GPUS];
};

/* machine.c: what outlives a process */
/* Whether the process has not ended yet; a zombie has. */
int alive(int pid);
char *in_folder(char *path, size_t size, const char *format, ...);
int read_gpus(struct gpu gpus[MAX_GPUS]);
uint64_t used_bytes(const char *uuid, int only_pid);
int pids_on(const char *uuid, int *pids, int limit);
const char *driver_version(void);
int api_version(void);
/* The fault for an action on a process now, "" for none. */
const char *fault(const char *action, int pid);
void sleep_ms(int milliseconds);

/* control.c: from the process that checkpoints another */
int restore_thread(int pid, int *tid);
int ask(int pid, const struct request *request, int *value);
const char *result_text(int result);

#endif
