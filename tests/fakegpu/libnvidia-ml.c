/* libnvidia-ml.so.1 of the fake GPU: the calls that pynvml makes for a machine's facts. */
#include "fakegpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NVML_SUCCESS = 0, NVML_INVALID_ARGUMENT = 2, NVML_NOT_SUPPORTED = 3, NVML_INSUFFICIENT_SIZE = 7, NVML_DRIVER_NOT_LOADED = 9 };

static struct gpu gpus[MAX_GPUS];
static int count;

int nvmlInitWithFlags(unsigned flags)
{
	const char *what = fault("nvml", 0);

	(void)flags;
	while (!strcmp(what, "hang"))
		sleep_ms(1000);
	if (*what)
		return atoi(what);
	count = read_gpus(gpus);
	return count ? NVML_SUCCESS : NVML_DRIVER_NOT_LOADED;
}

int nvmlInit_v2(void)
{
	return nvmlInitWithFlags(0);
}

int nvmlShutdown(void)
{
	return NVML_SUCCESS;
}

const char *nvmlErrorString(int result)
{
	return result == NVML_DRIVER_NOT_LOADED ? "Driver Not Loaded" : "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *text, unsigned size)
{
	snprintf(text, size, "%s", driver_version());
	return NVML_SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *found)
{
	*found = count;
	return NVML_SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **handle)
{
	*handle = &gpus[index];
	return index < (unsigned)count ? NVML_SUCCESS : NVML_INVALID_ARGUMENT;
}

int nvmlDeviceGetUUID(struct gpu *gpu, char *text, unsigned size)
{
	snprintf(text, size, "%s", gpu->uuid);
	return NVML_SUCCESS;
}

int nvmlDeviceGetName(struct gpu *gpu, char *text, unsigned size)
{
	snprintf(text, size, "%s", gpu->model);
	return NVML_SUCCESS;
}

int nvmlDeviceGetMemoryInfo(struct gpu *gpu, unsigned long long memory[3])
{
	memory[0] = gpu->total;
	memory[2] = used_bytes(gpu->uuid, 0);
	memory[1] = gpu->total - memory[2];
	return NVML_SUCCESS;
}

int nvmlDeviceGetPersistenceMode(struct gpu *gpu, int *mode)
{
	*mode = gpu->persistence;
	return NVML_SUCCESS;
}

int nvmlDeviceGetComputeMode(struct gpu *gpu, int *mode)
{
	*mode = gpu->compute_mode;
	return NVML_SUCCESS;
}

/* A negative value in the file stands for a GPU that knows no MIG. */
int nvmlDeviceGetMigMode(struct gpu *gpu, unsigned *now, unsigned *pending)
{
	*now = *pending = gpu->mig;
	return gpu->mig < 0 ? NVML_NOT_SUPPORTED : NVML_SUCCESS;
}

struct process {
	unsigned pid;
	unsigned long long used;
	unsigned gpu_instance, compute_instance;
};

int nvmlDeviceGetComputeRunningProcesses_v3(struct gpu *gpu, unsigned *size, struct process *processes)
{
	int pids[64], found = pids_on(gpu->uuid, pids, 64);
	unsigned room = *size;

	*size = found;
	if (room < (unsigned)found)
		return NVML_INSUFFICIENT_SIZE;
	for (int i = 0; i < found; i++)
		processes[i] = (struct process){ pids[i], used_bytes(gpu->uuid, pids[i]), -1, -1 };
	return NVML_SUCCESS;
}
