"""Starting a job so that it can be dumped, and keeping it alive: schedule, preemption, resume."""
