/*
 * How one process asks the restore thread of another: files in $FAKEGPU_DIR/control that the thread looks for, so that
 * nothing of it is open while the process is dumped, and a restored process is found by its pid again.
 */
#include "fakegpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int restore_thread(int pid, int *tid)
{
	char path[512], name[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (access(path, F_OK))
		return INVALID_VALUE;
	file = fopen(in_folder(path, sizeof(path), "control/%d.thread", pid), "re");
	if (!file)
		return NOT_INITIALIZED;
	if (fscanf(file, "%d", tid) != 1)
		*tid = 0;
	fclose(file);
	/* The file may be left over from a process that had this pid before. */
	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, *tid);
	file = fopen(path, "re");
	if (file) {
		if (!fgets(name, sizeof(name), file))
			name[0] = 0;
		fclose(file);
	}
	return strcmp(name, "fakegpu-restore\n") ? NOT_INITIALIZED : SUCCESS;
}

static int write_request(int pid, long number, const struct request *request)
{
	char path[512], temporary[512];
	FILE *file;

	in_folder(path, sizeof(path), "control/%d.request", pid);
	in_folder(temporary, sizeof(temporary), "control/%d.request.%ld", pid, number);
	file = fopen(temporary, "we");
	if (!file)
		return -1;
	fprintf(file, "%ld %d %s %d %d %d\n", number, getpid(), request->action, request->timeout_ms,
		request->initialized, request->pairs);
	for (int i = 0; i < request->pairs; i++)
		fprintf(file, "%s %s\n", request->map[i].old, request->map[i].new);
	fclose(file);
	return rename(temporary, path);
}

static int read_reply(int pid, long number, int *result, int *value)
{
	char path[512];
	long answered = 0;
	FILE *file = fopen(in_folder(path, sizeof(path), "control/%d.reply", pid), "re");

	if (!file)
		return -1;
	if (fscanf(file, "%ld %d %d", &answered, result, value) != 3)
		answered = 0;
	fclose(file);
	return answered == number ? 0 : -1;
}

int ask(int pid, const struct request *request, int *value)
{
	char path[512];
	struct timespec now;
	int tid, lock, result = restore_thread(pid, &tid);
	long number;

	if (result)
		return result;
	while (!strcmp(request->action, "state") && !strcmp(fault("state", pid), "hang"))
		sleep_ms(20);
	if (!strcmp(fault("permission", pid), "denied"))
		return OPERATING_SYSTEM;
	lock = open(in_folder(path, sizeof(path), "control/%d.lock", pid), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0)
		return OPERATING_SYSTEM;
	while (flock(lock, LOCK_EX) && errno == EINTR)
		;
	clock_gettime(CLOCK_REALTIME, &now);
	number = now.tv_sec * 1000000000L + now.tv_nsec;
	result = OPERATING_SYSTEM;
	if (!write_request(pid, number, request))
		while (read_reply(pid, number, &result, value)) {
			if (restore_thread(pid, &tid)) {
				result = OPERATING_SYSTEM;
				break;
			}
			sleep_ms(1);
		}
	close(lock);
	return result;
}

const char *result_text(int result)
{
	switch (result) {
	case SUCCESS: return "no error";
	case INVALID_VALUE: return "invalid argument";
	case OUT_OF_MEMORY: return "out of memory";
	case NOT_INITIALIZED: return "initialization error";
	case NO_DEVICE: return "no CUDA-capable device is detected";
	case INVALID_CONTEXT: return "invalid device context";
	case OPERATING_SYSTEM: return "OS call failed or operation not supported on this OS";
	case ILLEGAL_STATE: return "the operation cannot be performed in the present state";
	case NOT_FOUND: return "named symbol not found";
	case NOT_READY: return "device not ready";
	case NOT_PERMITTED: return "operation not permitted";
	case NOT_SUPPORTED: return "operation not supported";
	default: return "unknown error";
	}
}
