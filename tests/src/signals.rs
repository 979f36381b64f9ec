//! Signals to a process and its children, and what `/proc` says about them.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// Sends a signal; a process that is gone already is no error.
pub fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // ESRCH is the one answer to expect: it ended before us.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Whether the process still runs; one that has ended and was not yet reaped does not.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// Whether the process is stopped (SIGSTOP).
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    matches!(state(pid), Some('T' | 't'))
}

/// The direct children of a process.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(_, ppid)| ppid == parent))
        .collect()
}

/// Stops a process, then its children; answers all of them.
///
/// The parent is stopped first and seen to be stopped, so that no new child escapes.
pub fn stop_tree(pid: u32) -> Vec<u32> {
    stop(pid);
    let mut tree = vec![pid];
    for child in children(pid) {
        stop(child);
        tree.push(child);
    }
    tree
}

/// Lets a process and its children go on.
pub fn continue_tree(pid: u32) {
    for child in children(pid) {
        send(child, Signal::SIGCONT);
    }
    send(pid, Signal::SIGCONT);
}

/// Kills a process and its children, the children of a killed parent included; answers all of them.
///
/// Their end is not waited for, and the caller reaps what is its own child.
pub fn kill_tree(pid: u32) -> Vec<u32> {
    stop(pid);
    let mut tree = vec![pid];
    tree.extend(children(pid));
    for pid in &tree {
        send(*pid, Signal::SIGKILL);
    }
    tree
}

/// Makes this process the one that inherits the children of a killed child, so that it can
/// [`reap`] them; elsewhere they would wait for a process 1 that may not care.
pub fn inherit_orphans() {
    // A kernel that refuses leaves them to process 1.
    let _ = prctl::set_child_subreaper(true);
}

/// Takes note of the end of processes that were inherited; those that run, or are not ours, are let be.
pub fn reap(pids: &[u32]) {
    for pid in pids.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
        let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    }
}

/// The command line of a process, word by word.
#[must_use]
pub fn command_line(pid: u32) -> Vec<String> {
    let words =
        std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn stop(pid: u32) {
    send(pid, Signal::SIGSTOP);
    let started = Instant::now();
    // A process in the middle of a system call stops when it comes back from it.
    while is_alive(pid) && !is_stopped(pid) && started.elapsed() < STOP_DEADLINE {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn state(pid: u32) -> Option<char> {
    stat(pid).map(|(state, _)| state)
}

/// State and parent. The name, in parentheses, may itself hold spaces and parentheses.
fn stat(pid: u32) -> Option<(char, u32)> {
    let line =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
