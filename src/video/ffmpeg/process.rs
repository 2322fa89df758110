//! A process whose output is read until a time, after which it is ended. It never outlives its handle, no thread waits
//! for it, and what it says on standard error can neither block it nor fill the memory.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Bytes of standard error that are kept; the first ones tell why.
const SAID_MAX: usize = 1 << 16;

/// A time that a clock can be set forward by.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// Its standard output is what is read from it.
pub(super) struct Process {
    child: Child,
    /// Until they are at their ends.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    said: Vec<u8>,
    deadline: Instant,
}

impl Process {
    /// Starts it, with nothing to read.
    pub(super) fn start(command: &mut Command, time_max: Duration) -> io::Result<Process> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let deadline = Instant::now() + time_max.min(FOR_EVER);
        Ok(Process { child, stdout, stderr, said: Vec::new(), deadline })
    }

    /// Waits for its end; how it ended, and what it said on standard error.
    ///
    /// # Errors
    /// `TimedOut`, and it is ended.
    pub(super) fn finish(mut self) -> io::Result<(ExitStatus, String)> {
        self.stdout = None;
        while self.stderr.is_some() {
            self.wait_for_output()?;
        }
        // Its pipes are closed: as a rule it is over by now.
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, String::from_utf8_lossy(&self.said).into_owned()));
            }
            self.time_left()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn time_left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// Waits until one of the pipes can be read, and takes what stands in standard error. Whether standard output can.
    fn wait_for_output(&mut self) -> io::Result<bool> {
        let left = self.time_left()?;
        let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let pipes = [self.stdout.as_ref().map(|pipe| pipe.as_fd()), self.stderr.as_ref().map(|pipe| pipe.as_fd())];
        let mut waits: Vec<PollFd> =
            pipes.iter().flatten().map(|&pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)).collect();
        match poll(&mut waits, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // An end or a fault of a pipe is something to read too.
        let mut ready = waits.iter().map(|wait| !wait.revents().is_empty());
        let stdout_ready = self.stdout.is_some() && ready.next() == Some(true);
        let stderr_ready = self.stderr.is_some() && ready.next() == Some(true);
        if let Some(stderr) = self.stderr.as_mut().filter(|_| stderr_ready) {
            let mut chunk = [0; 4096];
            let length = stderr.read(&mut chunk)?;
            self.said.extend_from_slice(&chunk[..length.min(SAID_MAX - self.said.len())]);
            if length == 0 {
                self.stderr = None;
            }
        }
        Ok(stdout_ready)
    }
}

impl Read for Process {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.stdout.is_some() {
            if self.wait_for_output()?
                && let Some(stdout) = &mut self.stdout
            {
                return stdout.read(buffer);
            }
        }
        Ok(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Neither can fail but for a process that is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
