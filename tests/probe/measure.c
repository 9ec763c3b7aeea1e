/* measure FILE PROGRAM ARGUMENT...: runs the program, writes the peak of its memory in KiB to FILE.
 * A child's ru_maxrss starts at its parent's: so this has to be a small process, and not the test. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 3)
		return 99;
	pid_t child = fork();
	if (child < 0)
		return 99;
	if (child == 0) {
		execv(argv[2], argv + 2);
		_exit(99);
	}
	int status;
	struct rusage usage;
	if (wait4(child, &status, 0, &usage) != child)
		return 99;
	FILE *file = fopen(argv[1], "w");
	if (!file || fprintf(file, "%ld\n", usage.ru_maxrss) < 0 || fclose(file))
		return 99;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
