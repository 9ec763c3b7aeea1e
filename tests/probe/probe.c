/* What a process in a container can do: one line per fact, "KEY VALUE"; read by tests/confinement.rs.
 * Only for containers: where nothing is refused it unmounts and changes things. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const char *outcome(long result)
{
	return result >= 0 ? "ALLOWED" : strerrorname_np(errno);
}

/* In a child: some calls change the caller, and some kill it. */
#define CALL(name, expression) \
	do { \
		int ends[2]; \
		char text[32] = "KILLED"; \
		if (pipe(ends)) \
			break; \
		fflush(stdout); \
		pid_t child = fork(); \
		if (child == 0) { \
			errno = 0; \
			const char *said = outcome((long)(expression)); \
			write(ends[1], said, strlen(said) + 1); \
			_exit(0); \
		} \
		close(ends[1]); \
		read(ends[0], text, sizeof text - 1); \
		close(ends[0]); \
		waitpid(child, NULL, 0); \
		printf("call:%s %s\n", name, text); \
	} while (0)

#ifndef SYS_clone3
#define SYS_clone3 435
#endif

static long raw_clone_user(void)
{
	long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	if (child == 0)
		_exit(0);
	return child;
}

static long mknod_then_open(const char *path)
{
	if (mknod(path, S_IFBLK | 0600, makedev(8, 0)))
		return -1;
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	int error = errno;
	unlink(path);
	errno = error;
	return fd;
}

#ifdef __x86_64__
static long socketcall(void)
{
	/* socketcall(SYS_SOCKET, {AF_ALG, SOCK_SEQPACKET, 0}) of the 32-bit table; arguments below 4 GiB. */
	unsigned int *arguments = (unsigned int *)(long)0x10000000;
	if ((void *)syscall(SYS_mmap, arguments, 4096, 3, 0x32, -1, 0) != arguments)
		return -1;
	arguments[0] = AF_ALG;
	arguments[1] = SOCK_SEQPACKET;
	arguments[2] = 0;
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(102L), "b"(1L), "c"(arguments) : "memory", "r8", "r9", "r10", "r11");
	result = (int)result;
	if (result < 0) {
		errno = -result;
		return -1;
	}
	return result;
}
#endif

static void calls(void)
{
	char byte[64] = "";
	struct iovec vector = { byte, 1 };
	struct timespec now = { 1, -1 }; /* wrong, so that it changes nothing where it is allowed */
	CALL("clone3", syscall(SYS_clone3, NULL, 0));
	CALL("newer-than-everything", syscall(4000));
	CALL("unshare-user", unshare(CLONE_NEWUSER));
	CALL("unshare-mount", unshare(CLONE_NEWNS));
	CALL("clone-user", raw_clone_user());
	CALL("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
	CALL("umount2", umount2("/proc", MNT_DETACH));
	CALL("pivot_root", syscall(SYS_pivot_root, "/", "/"));
	CALL("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
	CALL("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
	CALL("move_mount", syscall(SYS_move_mount, AT_FDCWD, "/", AT_FDCWD, "/tmp", 0));
	CALL("mount_setattr", syscall(442, AT_FDCWD, "/", 0, byte, 32));
	CALL("setns", setns(open("/proc/self/ns/uts", O_RDONLY), 0));
	CALL("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0));
	CALL("pidfd_getfd", syscall(438, syscall(434, getpid(), 0), 0, 0));
	CALL("personality", personality(ADDR_NO_RANDOMIZE));
	CALL("keyctl", syscall(SYS_keyctl, 0, -3, 0));
	CALL("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
	CALL("request_key", syscall(SYS_request_key, "user", "x", NULL, -3));
	CALL("bpf", syscall(SYS_bpf, 0, byte, 16));
	CALL("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
	CALL("userfaultfd", syscall(SYS_userfaultfd, 1));
	CALL("io_uring_setup", syscall(425, 1, byte));
	CALL("io_uring_enter", syscall(426, 0, 0, 0, 0, 0));
	CALL("io_uring_register", syscall(427, 0, 0, 0, 0));
	CALL("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
	CALL("init_module", syscall(SYS_init_module, NULL, 0, ""));
	CALL("finit_module", syscall(SYS_finit_module, -1, "", 0));
	CALL("delete_module", syscall(SYS_delete_module, "nosuch", 0));
	CALL("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
	CALL("acct", acct(NULL));
	CALL("swapon", syscall(SYS_swapon, "/nosuch", 0));
	CALL("swapoff", syscall(SYS_swapoff, "/nosuch"));
	CALL("quotactl", syscall(SYS_quotactl, 0, NULL, 0, NULL));
#ifdef __x86_64__
	CALL("iopl", syscall(SYS_iopl, 3));
	CALL("ioperm", syscall(SYS_ioperm, 0x80, 1, 1));
	CALL("socketcall-alg", socketcall());
#endif
	CALL("clock_settime", syscall(SYS_clock_settime, CLOCK_REALTIME, &now));
	CALL("settimeofday", syscall(SYS_settimeofday, &now, NULL));
	CALL("syslog", syscall(SYS_syslog, 3, byte, 1));
	CALL("vhangup", vhangup());
	CALL("fanotify_init", syscall(SYS_fanotify_init, 0, 0));
	CALL("lookup_dcookie", syscall(SYS_lookup_dcookie, 0, byte, 1));
	CALL("ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	CALL("process_vm_readv", process_vm_readv(getpid(), &vector, 1, &vector, 1, 0));
	CALL("socket-alg", socket(AF_ALG, SOCK_SEQPACKET, 0));
	CALL("socket-vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
	CALL("socket-packet", socket(AF_PACKET, SOCK_RAW, 0));
	CALL("socket-icmp", socket(AF_INET, SOCK_RAW, 1));
	CALL("socket-unix", socket(AF_UNIX, SOCK_STREAM, 0));
	CALL("mknod", mknod("/probe-node", S_IFBLK | 0600, makedev(8, 0)));
	CALL("mknod-open", mknod_then_open("/probe-node2"));
	CALL("sethostname", sethostname("x", 1));
	CALL("chroot", chroot("/"));
	CALL("kmem", open("/dev/mem", O_RDONLY));
	CALL("tiocsti", ioctl(0, TIOCSTI, "x"));
}

static void print_file(const char *key, const char *path)
{
	FILE *file = fopen(path, "r");
	char line[1024];
	if (!file) {
		printf("%s ERROR %s\n", key, strerrorname_np(errno));
		return;
	}
	while (fgets(line, sizeof line, file))
		printf("%s %s%s", key, line, strchr(line, '\n') ? "" : "\n");
	fclose(file);
}

static void list_dev(void)
{
	DIR *directory = opendir("/dev");
	struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		char path[300], target[200] = "";
		struct stat found;
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(path, sizeof path, "/dev/%s", entry->d_name);
		lstat(path, &found);
		readlink(path, target, sizeof target - 1);
		if (S_ISCHR(found.st_mode))
			printf("dev %s char %u:%u\n", entry->d_name, major(found.st_rdev), minor(found.st_rdev));
		else if (S_ISLNK(found.st_mode))
			printf("dev %s link %s\n", entry->d_name, target);
		else
			printf("dev %s %s\n", entry->d_name, S_ISDIR(found.st_mode) ? "dir" : "OTHER");
	}
}

/* "absent", "empty", or "SHOWN". */
static void masked(const char *path)
{
	struct stat found;
	const char *state = "SHOWN";
	if (lstat(path, &found)) {
		state = "absent";
	} else if (S_ISDIR(found.st_mode)) {
		DIR *directory = opendir(path);
		int count = 0;
		while (directory && readdir(directory))
			count++;
		state = count <= 2 ? "empty" : "SHOWN";
	} else {
		char byte;
		int fd = open(path, O_RDONLY | O_NONBLOCK);
		state = fd < 0 || read(fd, &byte, 1) <= 0 ? "empty" : "SHOWN";
	}
	printf("masked %s %s\n", path, state);
}

static int try_write(const char *path, const struct stat *found, int type, struct FTW *position)
{
	/* Processes are the container's own. */
	if (!strncmp(path, "/proc/", 6) && (path[6] >= '0' && path[6] <= '9'))
		return FTW_SKIP_SUBTREE;
	/* Who has DAC_OVERRIDE opens read-only files for writing too, but they have no way to write. */
	if (type == FTW_F && S_ISREG(found->st_mode) && (found->st_mode & 0222)) {
		int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW);
		if (fd >= 0) {
			printf("writable %s\n", path);
			close(fd);
		}
	}
	return FTW_CONTINUE;
}

static void links(const char *directory_path, const char *key)
{
	DIR *directory = opendir(directory_path);
	struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		char path[300], target[200] = "";
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(directory) && *key == 'f')
			continue;
		snprintf(path, sizeof path, "%s/%s", directory_path, entry->d_name);
		readlink(path, target, sizeof target - 1);
		printf("%s %s %s\n", key, entry->d_name, target);
	}
	closedir(directory);
}

int main(void)
{
	static const char *hidden[] = { "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore",
		"/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/fs/selinux",
		"/sys/devices/system/cpu/cpu0/thermal_throttle", NULL };
	static const int limits[] = { RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_CORE, RLIMIT_MEMLOCK, RLIMIT_STACK };
	static const char *limit_names[] = { "nofile", "nproc", "core", "memlock", "stack" };
	char text[4096];
	/* First: later ones open their own. */
	links("/proc/self/fd", "fd");
	for (char **variable = environ; *variable; variable++)
		printf("env %s\n", *variable);
	print_file("status", "/proc/self/status");
	links("/proc/self/ns", "ns");
	print_file("uid_map", "/proc/self/uid_map");
	print_file("oom", "/proc/self/oom_score_adj");
	print_file("mount", "/proc/self/mounts");
	print_file("pids.max", "/sys/fs/cgroup/pids.max");
	print_file("pids.max", "/sys/fs/cgroup/pids/pids.max");
	print_file("cgroup", "/proc/self/cgroup");
	printf("cwd %s\n", getcwd(text, sizeof text) ? text : "NONE");
	for (int index = 0; index < 5; index++) {
		struct rlimit limit;
		getrlimit(limits[index], &limit);
		printf("rlimit %s %lld %lld\n", limit_names[index], (long long)limit.rlim_cur, (long long)limit.rlim_max);
	}
	for (const char **path = hidden; *path; path++)
		masked(*path);
	list_dev();
	nftw("/proc", try_write, 32, FTW_PHYS | FTW_MOUNT | FTW_ACTIONRETVAL);
	nftw("/proc/sys", try_write, 32, FTW_PHYS | FTW_ACTIONRETVAL);
	nftw("/sys", try_write, 32, FTW_PHYS | FTW_ACTIONRETVAL);
	FILE *symbols = fopen("/proc/kallsyms", "r");
	if (symbols && fgets(text, sizeof text, symbols))
		printf("kallsyms %.16s\n", text);
	calls();
	printf("end\n");
	return 0;
}
