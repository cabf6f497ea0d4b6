/* NVIDIA's cuda-checkpoint on the fake GPU: options, output and exit statuses as its README and reports describe them. */
#define _GNU_SOURCE
#include "fakegpu.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct option options[] = {
	{ "help", no_argument, 0, 'h' },           { "toggle", no_argument, 0, 'T' },
	{ "pid", required_argument, 0, 'p' },
#if DRIVER >= 555
	{ "action", required_argument, 0, 'a' },   { "get-restore-tid", no_argument, 0, 'g' },
#endif
#if DRIVER >= 570
	{ "get-state", no_argument, 0, 's' },      { "timeout", required_argument, 0, 't' },
#endif
#if DRIVER >= 580
	{ "device-map", required_argument, 0, 'd' },
#endif
#if DRIVER >= 590
	{ "launch-job", no_argument, 0, 'j' },
#endif
	{ 0 },
};

static void help(void)
{
	puts("CUDA checkpoint and restore utility.\n\nOptions:");
	for (const struct option *each = options; each->name; each++)
		printf("    --%s%s\n", each->name, each->has_arg ? " <value>" : "");
}

static int failed(const char *doing, int pid, int result)
{
	fprintf(stderr, "%s process ID %d: \"%s\"\n", doing, pid, result_text(result));
	return 1;
}

static int launch(char **argv)
{
	char value[32];

	snprintf(value, sizeof(value), "/proc/self/fd/%d", memfd_create("job", 0));
	setenv("CUDA_CHECKPOINT_JOB_FILE", value, 1);
	execvp(argv[0], argv);
	perror(argv[0]);
	return 127;
}

static int read_map(struct request *request, char *text)
{
	for (char *pair = strtok(text, ","); pair; pair = strtok(NULL, ",")) {
		struct pair *to = &request->map[request->pairs];
		if (request->pairs++ == MAX_GPUS || sscanf(pair, "%40[^=]=%40s", to->old, to->new) != 2)
			return INVALID_VALUE;
	}
	return SUCCESS;
}

static int do_action(int pid, struct request *request)
{
	char doing[64];
	int value, result = ask(pid, request, &value);

	snprintf(doing, sizeof(doing), "Could not %s on", request->action);
	return result ? failed(doing, pid, result) : 0;
}

static int toggle(int pid, struct request *request)
{
	static const char *const away[] = { "lock", "checkpoint" }, *const back[] = { "restore", "unlock" };
	struct request look = { .action = "state" };
	int value = RUNNING, result = ask(pid, &look, &value);

	for (int i = 0; !result && i < 2; i++) {
		strcpy(request->action, value == RUNNING ? away[i] : back[i]);
		int ignored;
		result = ask(pid, request, &ignored);
	}
	return result ? failed("Error toggling CUDA in", pid, result) : 0;
}

static int show_state(int pid)
{
	static const char *const names[] = { "running", "locked", "checkpointed", "failed" };
	struct request request = { .action = "state" };
	int value, result = ask(pid, &request, &value);

	if (result)
		return failed("Error getting process state for", pid, result);
	puts(names[value]);
	return 0;
}

static int show_thread(int pid)
{
	int tid;

	if (restore_thread(pid, &tid)) {
		fprintf(stderr, "Could not find restore thread for process ID %d\n", pid);
		return 1;
	}
	printf("%d\n", tid);
	return 0;
}

int main(int argc, char **argv)
{
	struct gpu gpus[MAX_GPUS];
	struct request request = { .initialized = 1 };
	int option, what = 0, pid = 0;

	if (!read_gpus(gpus)) {
		fprintf(stderr, "Error initializing CUDA: \"%s\"\n", result_text(NO_DEVICE));
		return 255;
	}
	while ((option = getopt_long(argc, argv, "+hp:a:t:d:j", options, NULL)) != -1) {
		switch (option) {
		case 'h': help(); return 0;
		case 'p': pid = atoi(optarg); break;
		case 't': request.timeout_ms = atoi(optarg); break;
		case 'j': return launch(argv + optind);
		case 'd':
			if (read_map(&request, optarg))
				return failed("Could not restore on", pid, INVALID_VALUE);
			break;
		case 'a':
			snprintf(request.action, sizeof(request.action), "%s", optarg);
			/* fall through */
		case 'T': case 's': case 'g': what = option; break;
		default: return 1;
		}
	}
	switch (what) {
	case 'a': return do_action(pid, &request);
	case 'T': return toggle(pid, &request);
	case 's': return show_state(pid);
	case 'g': return show_thread(pid);
	default: help(); return 1;
	}
}
