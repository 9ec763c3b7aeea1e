//! File systems of a test's own, to be filled, made read-only and cut off.

use std::path::{Path, PathBuf};
use std::process::Command;

use mica_testkit::{TempDir, needs_root, skip, temp_dir};

/// A mounted file system; gone with everything on it when dropped.
pub struct Disk {
    directory: TempDir,
}

impl Disk {
    /// A small ext4 in a file, or a counted skip: it needs root, mkfs.ext4 and loop devices.
    #[track_caller]
    pub fn ext4(size: &str, options: &[&str]) -> Option<Self> {
        if !needs_root() {
            return None;
        }
        let directory = temp_dir();
        // The image is in memory: what is tested is the order of writes, and syncing a busy disk takes seconds.
        let script = "mkdir disk; mount -t tmpfs -o size=256m tmpfs disk; truncate -s \"$1\" disk/image; shift; \
                      mkfs.ext4 -q -m 0 \"$@\" disk/image";
        let made = shell(script, &directory, size, options);
        let disk = Self { directory };
        if !made {
            skip("cannot make a file system (tmpfs, mkfs.ext4)");
            return None;
        }
        disk.mount("mkdir mounted; mount -o loop disk/image mounted; rmdir mounted/lost+found")
    }

    /// One in memory, where syncing costs nothing, or a counted skip: it needs root.
    #[track_caller]
    pub fn memory() -> Option<Self> {
        if !needs_root() {
            return None;
        }
        let disk = Self { directory: temp_dir() };
        disk.mount("mkdir mounted; mount -t tmpfs -o size=1g,mode=755 tmpfs mounted")
    }

    fn mount(self, script: &str) -> Option<Self> {
        let mounted = shell(script, &self.directory, "", &[]);
        if !mounted {
            skip("cannot mount a file system (loop devices, tmpfs)");
        }
        mounted.then_some(self)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// What is in the image at this moment, as another disk: what is there when the power goes now.
    ///
    /// Whoever writes has to be killed before: a disk that is copied while it changes looks like none ever does.
    ///
    /// # Panics
    /// If the file system has no image, or the copy cannot be mounted.
    #[track_caller]
    pub fn after_power_cut(&self) -> Self {
        let copy = Self { directory: temp_dir() };
        let image = self.directory.path().join("disk/image");
        let script = "mkdir disk mounted; mount -t tmpfs -o size=256m tmpfs disk; cp --sparse=always \"$1\" disk/image; \
                      mount -o loop disk/image mounted";
        assert!(
            shell(script, &copy.directory, image.to_str().expect("our own path"), &[]),
            "the image is mounted"
        );
        copy
    }

    /// Leaves so many bytes free, at most a block more.
    ///
    /// # Panics
    /// If there is less already.
    #[track_caller]
    pub fn leave_free(&self, bytes: u64) {
        let ballast = self.ballast();
        let _ = std::fs::remove_file(&ballast);
        let free = self.free_bytes();
        assert!(free > bytes, "only {free} bytes are free");
        let file = std::fs::File::create(&ballast).expect("one more file");
        let flags = rustix::fs::FallocateFlags::empty();
        // The file's own metadata take some blocks as well.
        let mut wanted = free - bytes;
        while rustix::fs::fallocate(&file, flags, 0, wanted).is_err() {
            wanted = wanted.checked_sub(4096).expect("room for some of it");
        }
    }

    /// Undoes [`Disk::leave_free`].
    pub fn make_room(&self) {
        // A test may call it to be sure.
        let _ = std::fs::remove_file(self.ballast());
    }

    /// Bytes that a root's process can still write.
    #[track_caller]
    pub fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(self.path()).expect("a mounted file system");
        found.f_bfree * found.f_frsize
    }

    /// Mounts it anew with these options: `ro`, `rw`.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[track_caller]
    pub fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        let status = Command::new("mount").args(["-o", &option]).arg(self.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "{option}");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failing test may have left processes in it: detached, it goes with them.
        for name in ["mounted", "disk"] {
            let _ = Command::new("umount").arg("-l").arg(self.directory.path().join(name)).output();
        }
    }
}

fn shell(script: &str, directory: &TempDir, first: &str, rest: &[&str]) -> bool {
    let directory: &Path = directory.path();
    let done = Command::new("/bin/sh")
        .args(["-euc", script, "sh", first])
        .args(rest)
        .current_dir(directory)
        .output();
    done.is_ok_and(|output| output.status.success())
}
