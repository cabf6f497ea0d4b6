#include "fakegpu.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

char *in_folder(char *path, size_t size, const char *format, ...)
{
	const char *folder = getenv("FAKEGPU_DIR");
	int length = snprintf(path, size, "%s/", folder ? folder : "/nonexistent");
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path + length, size - length, format, arguments);
	va_end(arguments);
	return path;
}

int read_gpus(struct gpu gpus[MAX_GPUS])
{
	char path[512], line[256];
	int count = 0;
	FILE *file = fopen(in_folder(path, sizeof(path), "gpus"), "re");

	while (file && count < MAX_GPUS && fgets(line, sizeof(line), file)) {
		struct gpu *gpu = &gpus[count];
		if (sscanf(line, "%40s %lu %d %d %d %63[^\n]", gpu->uuid, &gpu->total, &gpu->persistence,
			   &gpu->compute_mode, &gpu->mig, gpu->model) == 6)
			count++;
	}
	if (file)
		fclose(file);
	return count;
}

int alive(int pid)
{
	char path[64], text[512], *end = NULL;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (file && fgets(text, sizeof(text), file))
		end = strrchr(text, ')');
	if (file)
		fclose(file);
	return end && end[2] != 'Z' && end[2] != 'X';
}

/* Calls `visit` for each allocation on the GPU; memory of processes that have ended is freed on the way. */
static void each_allocation(const char *uuid, void (*visit)(int pid, uint64_t bytes, void *data), void *data)
{
	char folder[512], path[1024];
	struct dirent *entry;
	struct stat facts;
	DIR *directory = opendir(in_folder(folder, sizeof(folder), "memory/%s", uuid));

	while (directory && (entry = readdir(directory))) {
		int pid = atoi(entry->d_name);
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		if (pid == 0 || stat(path, &facts))
			continue;
		if (alive(pid))
			visit(pid, facts.st_size, data);
		else
			unlink(path);
	}
	if (directory)
		closedir(directory);
}

struct sum {
	int only_pid;
	uint64_t bytes;
};

static void add(int pid, uint64_t bytes, void *data)
{
	struct sum *sum = data;

	if (!sum->only_pid || sum->only_pid == pid)
		sum->bytes += bytes;
}

uint64_t used_bytes(const char *uuid, int only_pid)
{
	struct sum sum = { only_pid, 0 };

	each_allocation(uuid, add, &sum);
	return sum.bytes;
}

struct list {
	int *pids, count, limit;
};

static void note(int pid, uint64_t bytes, void *data)
{
	struct list *list = data;

	(void)bytes;
	for (int i = 0; i < list->count; i++)
		if (list->pids[i] == pid)
			return;
	if (list->count < list->limit)
		list->pids[list->count++] = pid;
}

int pids_on(const char *uuid, int *pids, int limit)
{
	struct list list = { pids, 0, limit };

	each_allocation(uuid, note, &list);
	return list.count;
}

static const struct {
	int branch, api;
	const char *version;
} drivers[] = {
	{ 550, 12040, "550.163.01" }, { 565, 12070, "565.57.01" },  { 570, 12080, "570.144" },
	{ 575, 12090, "575.57.08" },  { 580, 13000, "580.159.04" }, { 590, 13010, "590.44.01" },
	{ 595, 13020, "595.91" },     { 610, 13030, "610.57.04" },  { 615, 13040, "615.71.09" },
};

const char *driver_version(void)
{
	for (size_t i = 0; i < sizeof(drivers) / sizeof(*drivers); i++)
		if (drivers[i].branch == DRIVER)
			return drivers[i].version;
	abort();
}

int api_version(void)
{
	for (size_t i = 0; i < sizeof(drivers) / sizeof(*drivers); i++)
		if (drivers[i].branch == DRIVER)
			return drivers[i].api;
	abort();
}

/*
 * FAULT is a result code that is given back without doing anything; `fail`: the process is in the state failed
 * afterwards; `busy`: the work never drains; `crash`: the target gets SIGSEGV; `hang`: no answer comes;
 * `delay=MS`: the action takes that long; `lie`: success is given back though nothing was done;
 * `swap`: memory is restored onto the next GPU instead.
 */
const char *fault(const char *action, int pid)
{
	static _Thread_local char found[24];
	char path[512], line[128], name[24], what[24];
	FILE *file = fopen(in_folder(path, sizeof(path), "faults"), "re");

	found[0] = 0;
	while (file && fgets(line, sizeof(line), file)) {
		int only = 0;
		if (sscanf(line, "%23s %23s %d", name, what, &only) < 2 || strcmp(name, action))
			continue;
		if (!only || only == pid) {
			memcpy(found, what, sizeof(found));
			break;
		}
	}
	if (file)
		fclose(file);
	return found;
}

void sleep_ms(int milliseconds)
{
	struct timespec pause = { milliseconds / 1000, milliseconds % 1000 * 1000000L };

	while (nanosleep(&pause, &pause) && errno == EINTR)
		;
}
