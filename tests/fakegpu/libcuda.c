/* libcuda.so.1 of the fake GPU: the application's calls, the restore thread in it, and the checkpoint interface. */
#define _GNU_SOURCE
#include "fakegpu.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_ALLOCATIONS 256
#define FIRST_POINTER 0x700000000000ULL
#define CALL(body) do { int entered = enter(); if (entered) return entered; int done = (body); leave(); return done; } while (0)

struct allocation {
	uint64_t pointer, size;
	int gpu, managed;
	void *saved; /* its contents in host memory while the process is checkpointed */
};

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static int heir_of, initialized, forked, inside, poisoned, device = -1;
static enum state state = RUNNING;
static long busy_ms; /* how long the work that was submitted still runs */
static struct gpu gpus[MAX_GPUS];
static int gpu_count;
static struct allocation allocations[MAX_ALLOCATIONS];
static uint64_t next_pointer = FIRST_POINTER;
static _Thread_local int current;

/* Every call of the application passes here; it waits while the process is locked, and for ever once it has failed. */
static int enter(void)
{
	int result = SUCCESS;

	pthread_mutex_lock(&gate);
	while (initialized && state != RUNNING)
		pthread_cond_wait(&opened, &gate);
	if (!initialized)
		result = NOT_INITIALIZED;
	else
		inside++;
	pthread_mutex_unlock(&gate);
	return result;
}

static void leave(void)
{
	pthread_mutex_lock(&gate);
	inside--;
	pthread_mutex_unlock(&gate);
}

/* ---- device memory ---- */

static char *memory_path(char *path, size_t size, const struct allocation *allocation)
{
	return in_folder(path, size, "memory/%s/%d.%ld", gpus[allocation->gpu].uuid, getpid(),
			 (long)(allocation - allocations));
}

static int machine_lock(void)
{
	char path[512];
	int lock = open(in_folder(path, sizeof(path), "memory.lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	flock(lock, LOCK_EX);
	return lock;
}

static int create_memory(const struct allocation *allocation)
{
	char path[512];
	const struct gpu *gpu = &gpus[allocation->gpu];
	int file, lock, result = OUT_OF_MEMORY;

	mkdir(in_folder(path, sizeof(path), "memory/%s", gpu->uuid), 0700);
	lock = machine_lock();
	if (used_bytes(gpu->uuid, 0) + allocation->size <= gpu->total) {
		file = open(memory_path(path, sizeof(path), allocation), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		result = file < 0 || ftruncate(file, allocation->size) ? OUT_OF_MEMORY : SUCCESS;
		close(file);
	}
	close(lock);
	return result;
}

static void free_memory(const struct allocation *allocation)
{
	char path[512];

	unlink(memory_path(path, sizeof(path), allocation));
}

/* The device memory of an allocation, mapped for the time of one access only. */
static void *map_memory(const struct allocation *allocation)
{
	char path[512];
	int file = open(memory_path(path, sizeof(path), allocation), O_RDWR | O_CLOEXEC);
	void *memory = mmap(NULL, allocation->size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

	close(file);
	return memory == MAP_FAILED ? NULL : memory;
}

static struct allocation *find(uint64_t pointer, uint64_t size)
{
	for (struct allocation *each = allocations; each < allocations + MAX_ALLOCATIONS; each++)
		if (each->size && pointer >= each->pointer && pointer + size <= each->pointer + each->size)
			return each;
	return NULL;
}

static int access_memory(uint64_t pointer, void *host, uint64_t size, int write)
{
	struct allocation *allocation = find(pointer, size);
	char *memory = allocation ? map_memory(allocation) : NULL;

	if (!memory)
		return INVALID_VALUE;
	if (write)
		memcpy(memory + (pointer - allocation->pointer), host, size);
	else
		memcpy(host, memory + (pointer - allocation->pointer), size);
	munmap(memory, allocation->size);
	return SUCCESS;
}

/* ---- what the restore thread does for others ---- */

static int lock_process(const struct request *request, int busy)
{
	int waited = 0;

	pthread_mutex_lock(&gate);
	if (state != RUNNING) {
		pthread_mutex_unlock(&gate);
		return ILLEGAL_STATE;
	}
	state = LOCKED;
	while (inside || busy_ms > 0 || busy) {
		if (request->timeout_ms && waited >= request->timeout_ms) {
			state = RUNNING;
			pthread_cond_broadcast(&opened);
			pthread_mutex_unlock(&gate);
			return NOT_READY;
		}
		pthread_mutex_unlock(&gate);
		sleep_ms(1);
		waited++;
		pthread_mutex_lock(&gate);
	}
	pthread_mutex_unlock(&gate);
	return SUCCESS;
}

/* Have the children of a job with a job file let the device go, too. */
static void send_heirs_away(void)
{
	char path[512], pattern[512];
	glob_t heirs = { 0 };
	FILE *file = fopen(in_folder(path, sizeof(path), "control/%d.leaving", getpid()), "we");

	fclose(file);
	in_folder(pattern, sizeof(pattern), "control/%d.heir.*", getpid());
	while (!glob(pattern, 0, NULL, &heirs)) {
		for (size_t i = 0; i < heirs.gl_pathc; i++)
			if (!alive(atoi(strrchr(heirs.gl_pathv[i], '.') + 1)))
				unlink(heirs.gl_pathv[i]);
		globfree(&heirs);
		sleep_ms(1);
	}
	unlink(path);
}

static int save_memory(void)
{
	for (struct allocation *each = allocations; each < allocations + MAX_ALLOCATIONS; each++)
		if (each->size && each->managed)
			return NOT_SUPPORTED;
	for (struct allocation *each = allocations; each < allocations + MAX_ALLOCATIONS; each++) {
		if (!each->size)
			continue;
		void *memory = map_memory(each);
		each->saved = mmap(NULL, each->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memcpy(each->saved, memory, each->size);
		munmap(memory, each->size);
		free_memory(each);
	}
	close(device);
	device = -1;
	send_heirs_away();
	state = CHECKPOINTED;
	return SUCCESS;
}

static int index_of(const struct gpu *among, int count, const char *uuid)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(among[i].uuid, uuid))
			return i;
	return -1;
}

/* Where each GPU of the checkpoint is now; the map must be empty or name every GPU of the checkpoint and of here. */
static int place_gpus(const struct request *request, const struct gpu *here, int count, int places[MAX_GPUS])
{
	int taken = 0;

	if (request->pairs && (DRIVER < 580 || request->pairs != count || request->pairs != gpu_count))
		return INVALID_VALUE;
	for (int i = 0; i < gpu_count; i++) {
		const char *uuid = request->pairs ? NULL : gpus[i].uuid;
		for (int pair = 0; pair < request->pairs; pair++)
			if (!strcmp(request->map[pair].old, gpus[i].uuid))
				uuid = request->map[pair].new;
		places[i] = uuid ? index_of(here, count, uuid) : -1;
		if (places[i] < 0 || taken & 1 << places[i])
			return INVALID_VALUE;
		taken |= 1 << places[i];
	}
	return SUCCESS;
}

static int restore_memory(const struct request *request, int swapped)
{
	struct gpu here[MAX_GPUS];
	int places[MAX_GPUS], count = read_gpus(here), result = place_gpus(request, here, count, places);

	if (poisoned)
		return OPERATING_SYSTEM;
	if (!request->initialized && !here[0].persistence)
		return NOT_INITIALIZED;
	if (result)
		return result;
	memcpy(gpus, here, sizeof(gpus));
	gpu_count = count;
	device = open(getenv("FAKEGPU_DEVICE"), O_RDWR);
	for (struct allocation *each = allocations; each < allocations + MAX_ALLOCATIONS; each++) {
		if (!each->size)
			continue;
		each->gpu = swapped ? (places[each->gpu] + 1) % count : places[each->gpu];
		if (create_memory(each)) {
			poisoned = 1;
			return OUT_OF_MEMORY;
		}
		access_memory(each->pointer, each->saved, each->size, 1);
		munmap(each->saved, each->size);
		each->saved = NULL;
	}
	state = LOCKED;
	return SUCCESS;
}

static int unlock_process(void)
{
	pthread_mutex_lock(&gate);
	int result = state == LOCKED ? SUCCESS : ILLEGAL_STATE;
	if (result == SUCCESS) {
		state = RUNNING;
		pthread_cond_broadcast(&opened);
	}
	pthread_mutex_unlock(&gate);
	return result;
}

static int carry_out(const struct request *request, const char *what)
{
	if (!strcmp(what, "lie"))
		return SUCCESS;
	if (!strcmp(request->action, "lock"))
		return lock_process(request, !strcmp(what, "busy"));
	if (!strcmp(request->action, "checkpoint"))
		return state == LOCKED ? save_memory() : ILLEGAL_STATE;
	if (!strcmp(request->action, "restore"))
		return state == CHECKPOINTED ? restore_memory(request, !strcmp(what, "swap")) : ILLEGAL_STATE;
	if (!strcmp(request->action, "unlock"))
		return unlock_process();
	return INVALID_VALUE;
}

static int act(const struct request *request, int caller)
{
	char what[24];
	int result;

	if (!strcmp(request->action, "state"))
		return SUCCESS;
	strcpy(what, fault(request->action, getpid()));
	if (!strcmp(what, "crash"))
		kill(getpid(), SIGSEGV);
	while (!strcmp(what, "hang") || !strcmp(what, "crash"))
		sleep_ms(50);
	if (what[0] >= '0' && what[0] <= '9')
		return atoi(what);
	if (!strcmp(what, "fail")) {
		state = FAILED;
		return UNKNOWN;
	}
	if (!strncmp(what, "delay=", 6))
		sleep_ms(atoi(what + 6));
	result = carry_out(request, what);
	/* A caller that is killed before the end leaves the two sides at odds. */
	if (!alive(caller))
		state = FAILED;
	return result;
}

/* Tells tests that an action is under way, and which. */
static void tell(const char *action)
{
	char path[512], temporary[512];
	FILE *file = fopen(in_folder(temporary, sizeof(temporary), "control/%d.doing.new", getpid()), "we");

	fputs(action, file);
	fclose(file);
	rename(temporary, in_folder(path, sizeof(path), "control/%d.doing", getpid()));
}

static int take_request(long *number, int *caller, struct request *request)
{
	char path[512];
	FILE *file = fopen(in_folder(path, sizeof(path), "control/%d.request", getpid()), "re");
	int good;

	if (!file)
		return 0;
	unlink(path);
	memset(request, 0, sizeof(*request));
	good = fscanf(file, "%ld %d %23s %d %d %d", number, caller, request->action, &request->timeout_ms,
		      &request->initialized, &request->pairs) == 6;
	for (int i = 0; good && i < request->pairs; i++)
		good = fscanf(file, "%40s %40s", request->map[i].old, request->map[i].new) == 2;
	fclose(file);
	return good;
}

static void reply(long number, int result)
{
	char path[512], temporary[512];
	FILE *file = fopen(in_folder(temporary, sizeof(temporary), "control/%d.reply.new", getpid()), "we");

	fprintf(file, "%ld %d %d\n", number, result, state);
	fclose(file);
	rename(temporary, in_folder(path, sizeof(path), "control/%d.reply", getpid()));
}

static void *serve(void *ready)
{
	char path[512];
	sigset_t all;
	FILE *file;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_NAME, "fakegpu-restore");
	unlink(in_folder(path, sizeof(path), "control/%d.request", getpid()));
	file = fopen(in_folder(path, sizeof(path), "control/%d.thread", getpid()), "we");
	fprintf(file, "%ld\n", syscall(SYS_gettid));
	fclose(file);
	*(volatile int *)ready = 1;
	for (;;) {
		struct request request;
		long number;
		int caller;
		if (take_request(&number, &caller, &request)) {
			tell(request.action);
			int result = act(&request, caller);
			tell("");
			reply(number, result);
		}
		sleep_ms(1);
	}
	return NULL;
}

/* ---- the application's calls ---- */

/* A forked child of a job with a job file: lets the device go when its parent is checkpointed. */
static void *follow_parent(void *unused)
{
	char path[512];

	(void)unused;
	while (access(in_folder(path, sizeof(path), "control/%d.leaving", heir_of), F_OK))
		sleep_ms(1);
	close(device);
	device = -1;
	unlink(in_folder(path, sizeof(path), "control/%d.heir.%d", heir_of, getpid()));
	return NULL;
}

static void in_forked_child(void)
{
	char path[512];

	forked = initialized;
	initialized = 0;
	/* From driver 590 on a job file lets the driver take care of the children too. */
	if (DRIVER >= 590 && forked && device >= 0 && getenv("CUDA_CHECKPOINT_JOB_FILE")) {
		pthread_t thread;
		FILE *file = fopen(in_folder(path, sizeof(path), "control/%d.heir.%d", getppid(), getpid()), "we");
		fclose(file);
		heir_of = getppid();
		pthread_create(&thread, NULL, follow_parent, NULL);
	}
}

int cuInit(unsigned flags)
{
	char path[512];
	pthread_t thread;
	volatile int ready = 0;

	if (flags)
		return INVALID_VALUE;
	if (initialized || forked)
		return forked ? NOT_INITIALIZED : SUCCESS;
	gpu_count = read_gpus(gpus);
	if (!gpu_count)
		return NO_DEVICE;
	/* Not close-on-exec across fork: a child that was forked inherits it, as with NVIDIA's driver. */
	device = open(getenv("FAKEGPU_DEVICE") ? getenv("FAKEGPU_DEVICE") : "", O_RDWR);
	if (device < 0)
		return OPERATING_SYSTEM;
	mkdir(in_folder(path, sizeof(path), "memory"), 0700);
	mkdir(in_folder(path, sizeof(path), "control"), 0700);
	for (struct allocation *each = allocations; each < allocations + MAX_ALLOCATIONS; each++)
		each->size = 0;
	if (pthread_create(&thread, NULL, serve, (void *)&ready))
		return OPERATING_SYSTEM;
	pthread_atfork(NULL, NULL, in_forked_child);
	while (!ready)
		sleep_ms(1);
	initialized = 1;
	return SUCCESS;
}

int cuDriverGetVersion(int *version)
{
	while (!strcmp(fault("version", 0), "hang"))
		sleep_ms(20);
	*version = api_version();
	return SUCCESS;
}

int cuGetErrorString(int result, const char **text)
{
	*text = result_text(result);
	return SUCCESS;
}

int cuDeviceGetCount(int *count)
{
	*count = gpu_count;
	return initialized ? SUCCESS : NOT_INITIALIZED;
}

int cuDeviceGet(int *handle, int ordinal)
{
	*handle = ordinal;
	return ordinal >= 0 && ordinal < gpu_count ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGetName(char *name, int size, int handle)
{
	snprintf(name, size, "%s", gpus[handle].model);
	return SUCCESS;
}

static void parse_uuid(const char *text, unsigned char bytes[16])
{
	int count = 0;

	for (text += 4; *text && count < 16; text += *text == '-')
		if (*text != '-' && sscanf(text, "%2hhx", &bytes[count++]) == 1)
			text += 2;
}

int cuDeviceGetUuid_v2(unsigned char uuid[16], int handle)
{
	parse_uuid(gpus[handle].uuid, uuid);
	return SUCCESS;
}

static int retain(void **context, int handle)
{
	if (handle < 0 || handle >= gpu_count)
		return INVALID_VALUE;
	*context = (void *)(uintptr_t)(handle + 1);
	return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int handle)
{
	CALL(retain(context, handle));
}

int cuCtxSetCurrent(void *context)
{
	current = (int)(uintptr_t)context - 1;
	return SUCCESS;
}

static int allocate(uint64_t *pointer, size_t size, int managed)
{
	struct allocation *free_one = allocations;

	while (free_one < allocations + MAX_ALLOCATIONS && free_one->size)
		free_one++;
	if (!size || free_one == allocations + MAX_ALLOCATIONS)
		return size ? OUT_OF_MEMORY : INVALID_VALUE;
	*free_one = (struct allocation){ next_pointer, size, current, managed, NULL };
	if (create_memory(free_one)) {
		free_one->size = 0;
		return OUT_OF_MEMORY;
	}
	next_pointer += (size + 0x1fffff) & ~0x1fffffULL;
	*pointer = free_one->pointer;
	return SUCCESS;
}

int cuMemAlloc_v2(uint64_t *pointer, size_t size)
{
	CALL(allocate(pointer, size, 0));
}

int cuMemAllocManaged(uint64_t *pointer, size_t size, unsigned flags)
{
	(void)flags;
	CALL(allocate(pointer, size, 1));
}

static int release(uint64_t pointer)
{
	struct allocation *allocation = find(pointer, 1);

	if (!allocation || allocation->pointer != pointer)
		return INVALID_VALUE;
	free_memory(allocation);
	allocation->size = 0;
	return SUCCESS;
}

int cuMemFree_v2(uint64_t pointer)
{
	CALL(release(pointer));
}

int cuMemcpyHtoD_v2(uint64_t pointer, const void *host, size_t size)
{
	CALL(access_memory(pointer, (void *)host, size, 1));
}

int cuMemcpyDtoH_v2(void *host, uint64_t pointer, size_t size)
{
	CALL(access_memory(pointer, host, size, 0));
}

static int set(uint64_t pointer, uint32_t value, size_t count)
{
	struct allocation *allocation = find(pointer, count * 4);
	char *memory = allocation ? map_memory(allocation) : NULL;

	if (!memory)
		return INVALID_VALUE;
	uint32_t *words = (uint32_t *)(memory + (pointer - allocation->pointer));
	for (size_t i = 0; i < count; i++)
		words[i] = value;
	munmap(memory, allocation->size);
	return SUCCESS;
}

int cuMemsetD32_v2(uint64_t pointer, uint32_t value, size_t count)
{
	CALL(set(pointer, value, count));
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
	*total = gpus[current].total;
	*free_bytes = *total - used_bytes(gpus[current].uuid, 0);
	return SUCCESS;
}

static int step(uint64_t pointer, uint64_t size, uint32_t seed)
{
	struct allocation *allocation = find(pointer, size);
	char *memory = allocation ? map_memory(allocation) : NULL;

	if (!memory)
		return INVALID_VALUE;
	uint32_t *words = (uint32_t *)(memory + (pointer - allocation->pointer));
	for (uint64_t i = 0; i < size / 4; i++)
		words[i] = words[i] * 1664525u + 1013904223u + seed + (uint32_t)i;
	munmap(memory, allocation->size);
	return SUCCESS;
}

/* The kernel: updates every word of the memory from what was there before. */
int fakegpuStep(uint64_t pointer, size_t size, uint32_t seed)
{
	CALL(step(pointer, size, seed));
}

static void *work(void *unused)
{
	(void)unused;
	for (;;) {
		pthread_mutex_lock(&gate);
		int left = busy_ms -= 1;
		pthread_mutex_unlock(&gate);
		if (left <= 0)
			return NULL;
		sleep_ms(1);
	}
}

static int submit(long milliseconds)
{
	pthread_t thread;

	pthread_mutex_lock(&gate);
	busy_ms = milliseconds;
	pthread_mutex_unlock(&gate);
	return pthread_create(&thread, NULL, work, NULL) || pthread_detach(thread) ? OPERATING_SYSTEM : SUCCESS;
}

/* A kernel that runs for a while after the call has returned. */
int fakegpuSubmit(int milliseconds)
{
	CALL(submit(milliseconds));
}

int cuStreamCreate(void **stream, unsigned flags)
{
	(void)flags;
	*stream = (void *)1;
	CALL(SUCCESS);
}

static int synchronize(void)
{
	for (;;) {
		pthread_mutex_lock(&gate);
		long left = busy_ms;
		pthread_mutex_unlock(&gate);
		if (left <= 0)
			return SUCCESS;
		sleep_ms(1);
	}
}

int cuStreamSynchronize(void *stream)
{
	(void)stream;
	CALL(synchronize());
}

int cuCtxSynchronize(void)
{
	CALL(synchronize());
}

/* ---- the checkpoint interface ---- */

#if DRIVER >= 570
struct lock_args {
	unsigned timeout_ms, reserved;
	uint64_t reserved1[7];
};
struct uuid_pair {
	unsigned char old[16], new[16];
};
struct restore_args {
	struct uuid_pair *pairs;
	unsigned count;
	char reserved[52];
};
_Static_assert(sizeof(struct lock_args) == 64 && sizeof(struct restore_args) == 64, "as in cuda.h");

static void write_uuid(char text[UUID_TEXT], const unsigned char b[16])
{
	snprintf(text, UUID_TEXT, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		 b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static int simple(int pid, const char *action)
{
	struct request request = { .initialized = initialized };
	int value;

	strcpy(request.action, action);
	return ask(pid, &request, &value);
}

int cuCheckpointProcessGetState(int pid, int *value)
{
	struct request request = { .action = "state" };

	return ask(pid, &request, value);
}

int cuCheckpointProcessGetRestoreThreadId(int pid, int *tid)
{
	while (!strcmp(fault("thread", pid), "hang"))
		sleep_ms(20);
	return restore_thread(pid, tid);
}

int cuCheckpointProcessLock(int pid, struct lock_args *args)
{
	struct request request = { .action = "lock", .timeout_ms = args ? args->timeout_ms : 0 };
	int value;

	return ask(pid, &request, &value);
}

int cuCheckpointProcessCheckpoint(int pid, void *args)
{
	(void)args;
	return simple(pid, "checkpoint");
}

int cuCheckpointProcessRestore(int pid, struct restore_args *args)
{
	struct request request = { .action = "restore", .initialized = initialized };
	int value;

	request.pairs = args && args->pairs ? args->count : 0;
	if (request.pairs > MAX_GPUS)
		return INVALID_VALUE;
	for (int i = 0; i < request.pairs; i++) {
		write_uuid(request.map[i].old, args->pairs[i].old);
		write_uuid(request.map[i].new, args->pairs[i].new);
	}
	return ask(pid, &request, &value);
}

int cuCheckpointProcessUnlock(int pid, void *args)
{
	(void)args;
	return simple(pid, "unlock");
}
#endif

/* What language bindings ask for every other function: without the version suffix of its symbol. */
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
	char symbol[128];
	Dl_info here;
	void *library;

	(void)version, (void)flags;
	dladdr((void *)cuInit, &here);
	library = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
	snprintf(symbol, sizeof(symbol), "%s_v2", name);
	*function = dlsym(library, symbol);
	if (!*function)
		*function = dlsym(library, name);
	dlclose(library);
	if (status)
		*status = *function ? 0 : 1;
	return *function ? SUCCESS : NOT_FOUND;
}
